package policy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
)

var update = flag.Bool("update", false, "rewrite the generated part of docs/policies.md")

const begin, end = "<!-- catalogue:begin -->\n", "<!-- catalogue:end -->\n"

// TestPage: the table in docs/policies.md is the catalogue; -update rewrites it.
func TestPage(t *testing.T) {
	file := filepath.Join(testenv.Root(t), "docs", "policies.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(page, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !ok || !closed {
		t.Fatalf("%s has no place for the catalogue, between %q and %q", file, begin, end)
	}
	want := bytes.Join([][]byte{before, []byte(begin + "\n" + table() + "\n" + end), after}, nil)
	switch {
	case bytes.Equal(page, want):
	case *update:
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is stale; run go test ./internal/broker/policy -run TestPage -update", file)
	}
	for _, d := range Catalogue() {
		if d.Name != "none" && !bytes.Contains(page, []byte("**"+d.Name+"**")) {
			t.Errorf("%s does not tell of %s", file, d.Name)
		}
	}
}

// table writes the catalogue for people.
func table() string {
	var b strings.Builder
	b.WriteString("| kind | policy | what it does | parameter | default | from – to | meaning |\n|---|---|---|---|---|---|---|\n")
	for _, d := range Catalogue() {
		row := fmt.Sprintf("| %s | `%s` | %s |", d.Kind, d.Name, d.What)
		if len(d.Parameters) == 0 {
			b.WriteString(row + " | | | |\n")
		}
		for _, p := range d.Parameters {
			bounds := p.Unit.Format(p.Least) + " – " + p.Unit.Format(p.Most)
			if p.Unit == Switch {
				bounds = "on, off"
			}
			fmt.Fprintf(&b, "%s `%s` | %s | %s | %s |\n", row, p.Name, p.Unit.Format(p.Default), bounds, p.What)
			row = "| | | |"
		}
	}
	return b.String()
}
