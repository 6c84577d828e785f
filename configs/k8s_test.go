package configs

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestKubernetes holds what keeps an agent on Kubernetes the same member, small in rights, and found by its peers. No
// cluster ran these files; where kubectl is installed, it puts them together.
func TestKubernetes(t *testing.T) {
	const container, join = "$.spec.template.spec.containers[0]", "$.spec.template.spec.initContainers[0]"
	both := map[string]string{
		container + ".securityContext.capabilities.drop[0]":     `"ALL"`,
		container + ".securityContext.readOnlyRootFilesystem":   `true`,
		container + ".securityContext.allowPrivilegeEscalation": `false`,
		join + ".securityContext.capabilities.drop[0]":          `"ALL"`,
		join + ".args[0]":                                            `"join"`,
		container + ".volumeMounts[0].mountPath":                     `"/data"`,
		container + ".readinessProbe.httpGet.path":                   `"/readyz"`,
		container + ".livenessProbe.httpGet.path":                    `"/healthz"`,
		container + ".ports[0].containerPort":                        `7424`,
		"$.spec.template.spec.automountServiceAccountToken":          `false`,
		"$.spec.template.spec.securityContext.seccompProfile.type":   `"RuntimeDefault"`,
		"$.spec.template.spec.containers[0].resources.limits.memory": `"768Mi"`,
		"$.spec.template.spec.terminationGracePeriodSeconds":         `30`,
	}
	for file, own := range map[string]map[string]string{
		"k8s/daemonset.yaml": {
			"$.kind":            `"DaemonSet"`,
			container + ".args": `["agent","--config","/data/syncagent.yaml"]`,
			container + ".readinessProbe.httpGet.port":      `7425`,
			"$.spec.template.spec.volumes[0].hostPath.path": `"/var/lib/syncagent"`,
			"$.spec.selector.matchLabels":                   `{"app.kubernetes.io/name":"syncagent"}`,
			"$.spec.template.metadata.labels":               `{"app.kubernetes.io/name":"syncagent"}`,
		},
		"k8s/statefulset.yaml": {
			"$.kind":            `"StatefulSet"`,
			container + ".args": `["agent","--config","/data/agent/syncagent.yaml"]`,
			container + ".readinessProbe.httpGet.port":          `"http"`,
			container + ".ports[2].containerPort":               `7425`,
			"$.spec.template.spec.securityContext.runAsNonRoot": `true`,
			"$.spec.serviceName":                                `"syncagent"`,
			"$.spec.selector.matchLabels":                       `{"app.kubernetes.io/name":"syncagent-set"}`,
			"$.spec.template.metadata.labels":                   `{"app.kubernetes.io/name":"syncagent-set"}`,
			"$.spec.volumeClaimTemplates[0].metadata.name":      `"data"`,
		},
	} {
		documents := strings.Split(read(t, file), "\n---\n")
		set := documents[len(documents)-1]
		for _, want := range []map[string]string{both, own} {
			for path, value := range want {
				if got := valueAt(t, set, path); got != value {
					t.Errorf("%s: %s is %s, want %s", file, path, got, value)
				}
			}
		}
	}
	service, _, _ := strings.Cut(read(t, "k8s/statefulset.yaml"), "\n---\n")
	if ip, selector := valueAt(t, service, "$.spec.clusterIP"), valueAt(t, service, "$.spec.selector"); ip != `"None"` || selector != `{"app.kubernetes.io/name":"syncagent-set"}` {
		t.Errorf("the set's service has the address %s and selects %s", ip, selector)
	}
	if kubectl, err := exec.LookPath("kubectl"); err == nil {
		if out, err := exec.Command(kubectl, "kustomize", "k8s").CombinedOutput(); err != nil || !strings.Contains(string(out), "image: syncagent:0.1.0") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// valueAt gives a place of a document as JSON.
func valueAt(t *testing.T, document, path string) string {
	t.Helper()
	p, err := yaml.PathString(path)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := p.Read(strings.NewReader(document), &v); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
