package test

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// documents are the texts that users and newcomers read.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[file] = string(text)
		}
	}
	if len(texts) < 5 {
		t.Fatalf("%d documents", len(texts))
	}
	return texts
}

// TestDocumentLinks holds that links between documents, and to headings in them, lead somewhere.
func TestDocumentLinks(t *testing.T) {
	texts := documents(t)
	for file, text := range texts {
		for _, m := range regexp.MustCompile(`\]\(([^)]*)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target, heading, _ := strings.Cut(m[1], "#")
			where := file
			if target != "" {
				where = filepath.Join(filepath.Dir(file), target)
			}
			if _, err := os.Stat(where); err != nil {
				t.Errorf("%s: link to %s: %v", file, m[1], err)
			}
			if heading != "" && !headings(texts[where])[heading] {
				t.Errorf("%s: link to %s: no such heading", file, m[1])
			}
		}
	}
}

// headings gives the anchors of a document.
func headings(text string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	return anchors
}

// TestDocumentPolicies parses every policy in the documents, with keys in place of those that they shorten.
func TestDocumentPolicies(t *testing.T) {
	short := regexp.MustCompile(`12D3KooW([A-Z])\.\.\.`)
	found := 0
	for file, text := range documents(t) {
		for _, m := range regexp.MustCompile("(?s)```\n(syncagent-policy 1\n.*?)```").FindAllStringSubmatch(text, -1) {
			found++
			policy := short.ReplaceAllStringFunc(m[1], func(s string) string {
				seed := make([]byte, ed25519.SeedSize)
				seed[0] = s[len("12D3KooW")]
				return record.KeyOf(ed25519.NewKeyFromSeed(seed)).String()
			})
			policy = strings.ReplaceAll(policy, "7bq4...", record.NetworkID{1}.String())
			parsed, err := acl.Parse([]byte(policy))
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			for _, w := range parsed.Warnings {
				t.Errorf("%s: %v", file, w)
			}
		}
	}
	if found < 2 {
		t.Errorf("found %d policies", found)
	}
}
