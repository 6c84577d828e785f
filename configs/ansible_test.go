package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestAnsible holds that the example role parses, and that each task has a name and one module, by its full name.
func TestAnsible(t *testing.T) {
	for _, file := range []string{"tasks", "handlers"} {
		var tasks []map[string]any
		if err := yaml.Unmarshal([]byte(read(t, filepath.Join("ansible/roles/syncagent", file, "main.yml"))), &tasks); err != nil || len(tasks) == 0 {
			t.Fatalf("%s: %d tasks, %v", file, len(tasks), err)
		}
		for _, task := range tasks {
			modules := 0
			for key := range task {
				if strings.HasPrefix(key, "ansible.builtin.") {
					modules++
				}
			}
			if name, _ := task["name"].(string); name == "" || modules != 1 {
				t.Errorf("%s: %v", file, task)
			}
		}
	}
	ansible, err := exec.LookPath("ansible-playbook")
	if err != nil {
		t.Skip("ansible-playbook is not installed: the role was parsed as YAML only")
	}
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("[syncagent]\na\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(ansible, "-i", hosts, "site.yml", "--syntax-check")
	cmd.Dir = "ansible"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
