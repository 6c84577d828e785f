package agent

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"

	healthv1 "syncagent/agent/api/health/v1"
	"syncagent/agent/api/health/v1/healthv1connect"
	"syncagent/agent/api/v1/apiv1connect"
)

// healthInterval is how often a watched state is looked at.
const healthInterval = 500 * time.Millisecond

// services are the names under which gRPC clients find what the socket serves.
var services = []string{apiv1connect.KVName, apiv1connect.AgentName, apiv1connect.PolicyName, healthv1connect.HealthName}

// health serves gRPC's health protocol. All services are as ready as the agent.
type health struct {
	ready func() bool
	stop  context.Context //nolint:containedctx // ends all streams when the agent stops; it is no request's context
}

func (h health) status() healthv1.HealthCheckResponse_ServingStatus {
	if h.ready() {
		return healthv1.HealthCheckResponse_SERVING
	}
	return healthv1.HealthCheckResponse_NOT_SERVING
}

func knownService(name string) bool { return name == "" || slices.Contains(services, name) }

// Check implements grpc.health.v1.
func (h health) Check(_ context.Context, r *connect.Request[healthv1.HealthCheckRequest]) (*connect.Response[healthv1.HealthCheckResponse], error) {
	if !knownService(r.Msg.GetService()) {
		return nil, &Error{Code: CodeNotFound, Message: fmt.Sprintf("no service %q", r.Msg.GetService())}
	}
	return connect.NewResponse(&healthv1.HealthCheckResponse{Status: h.status()}), nil
}

// Watch implements grpc.health.v1: the state now, and again whenever it changed. When the agent stops, the last message
// says so.
func (h health) Watch(ctx context.Context, r *connect.Request[healthv1.HealthCheckRequest], stream *connect.ServerStream[healthv1.HealthCheckResponse]) error {
	clearReadDeadline(ctx)
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	sent := healthv1.HealthCheckResponse_UNKNOWN
	for {
		now := h.status()
		if !knownService(r.Msg.GetService()) {
			now = healthv1.HealthCheckResponse_SERVICE_UNKNOWN
		}
		if now != sent {
			sent = now
			if err := send(ctx, stream, &healthv1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.stop.Done():
			return send(ctx, stream, &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_NOT_SERVING})
		case <-ticker.C:
		}
	}
}

// grpcRoutes are what gRPC tools expect beside the services: health and reflection.
func (s *server) grpcRoutes(options []connect.HandlerOption) map[string]http.Handler {
	routes := map[string]http.Handler{}
	add := func(path string, handler http.Handler) { routes[path] = handler }
	add(healthv1connect.NewHealthHandler(health{s.service.ready, s.kv.stop}, options...))
	reflector := grpcreflect.NewStaticReflector(services...)
	add(grpcreflect.NewHandlerV1(reflector, options...))
	add(grpcreflect.NewHandlerV1Alpha(reflector, options...)) // what most tools still speak
	return routes
}
