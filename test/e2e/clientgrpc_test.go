package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// grpcUser speaks gRPC by grpc-go. It learned the service from the agent and writes its messages as JSON, as grpcurl does.
type grpcUser struct {
	conn *grpc.ClientConn
	kv   protoreflect.ServiceDescriptor
}

func dialGRPC(ctx context.Context, t *testing.T, socket string) grpcUser {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	kv, err := reflected(ctx, conn, "syncagent.v1.KV")
	if err != nil {
		t.Fatalf("reflection: %v", err)
	}
	return grpcUser{conn, kv}
}

// reflected asks the server what a service is. The answer holds all files that are needed.
func reflected(ctx context.Context, conn *grpc.ClientConn, service string) (protoreflect.ServiceDescriptor, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	ask := &reflection.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}
	if err := s.Send(&reflection.ServerReflectionRequest{MessageRequest: ask}); err != nil {
		return nil, err
	}
	answer, err := s.Recv()
	if err != nil {
		return nil, err
	}
	var set descriptorpb.FileDescriptorSet
	for _, raw := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var f descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(raw, &f); err != nil {
			return nil, err
		}
		set.File = append(set.File, &f)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, err
	}
	d, err := files.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, err
	}
	return d.(protoreflect.ServiceDescriptor), nil
}

// grpcAnswer is what the answers of all methods hold of interest.
type grpcAnswer struct {
	Entry   grpcEntry
	Entries []grpcEntry
	Events  []struct {
		Type  string
		Entry grpcEntry
	}
}

type grpcEntry struct {
	Path  string
	Value []byte
}

// call gives each answer to fn; a method that is no stream has one.
func (g grpcUser) call(ctx context.Context, method string, request map[string]any, fn func(grpcAnswer) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := g.kv.Methods().ByName(protoreflect.Name(method))
	in := dynamicpb.NewMessage(m.Input())
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(text, in); err != nil {
		return err
	}
	s, err := g.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+string(g.kv.FullName())+"/"+method)
	if err != nil {
		return err
	}
	if err := errors.Join(s.SendMsg(in), s.CloseSend()); err != nil {
		return err
	}
	for {
		out := dynamicpb.NewMessage(m.Output())
		if err := s.RecvMsg(out); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if text, err = protojson.Marshal(out); err != nil {
			return err
		}
		var a grpcAnswer
		if err := errors.Join(json.Unmarshal(text, &a), fn(a)); err != nil {
			return err
		}
	}
}

func (g grpcUser) put(ctx context.Context, path, value string) error {
	return g.call(ctx, "Put", map[string]any{"path": path, "value": []byte(value)}, func(grpcAnswer) error { return nil })
}

func (g grpcUser) remove(ctx context.Context, path string) error {
	return g.call(ctx, "Delete", map[string]any{"path": path}, func(grpcAnswer) error { return nil })
}

func (g grpcUser) get(ctx context.Context, path string) (value string, err error) {
	err = g.call(ctx, "Get", map[string]any{"path": path}, func(a grpcAnswer) error {
		value = string(a.Entry.Value)
		return nil
	})
	if status.Code(err) == codes.NotFound {
		err = errAbsent
	}
	return value, err
}

func (g grpcUser) list(ctx context.Context, prefix string) (all []string, err error) {
	err = g.call(ctx, "List", map[string]any{"prefix": prefix, "values": true}, func(a grpcAnswer) error {
		for _, e := range a.Entries {
			all = append(all, e.Path+"="+string(e.Value))
		}
		return nil
	})
	return all, err
}

func (g grpcUser) watch(ctx context.Context, prefix string, tell func(string) error) error {
	return g.call(ctx, "Watch", map[string]any{"prefixes": []string{prefix}, "values": true}, func(a grpcAnswer) error {
		for _, e := range a.Events {
			if err := tell(eventText(e.Type, e.Entry.Path, e.Entry.Value)); err != nil {
				return err
			}
		}
		return nil
	})
}
