// Command up brings a real local manager up, for a person to try the gateway with:
//
//	go run ./internal/testbed/up slurm DIR      prints what to set, as a shell reads it
//	go run ./internal/testbed/up condor DIR
//	go run ./internal/testbed/up down DIR       ends what was brought up there
//
// DIR must be short, as there are sockets below it. What a manager knows stays there.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// manager is how one kind is brought up and ended.
type manager struct {
	up   func(dir string) (env []string, err error)
	down func(dir string) error
	mark string // a file below its directory
}

// managers by name; each has a file of its own.
var managers = map[string]manager{}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintf(os.Stderr, "usage: up %s|down DIR\n", strings.Join(slices.Sorted(maps.Keys(managers)), "|"))
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(verb, dir string) error {
	if verb == "down" {
		for _, m := range managers {
			if _, err := os.Stat(filepath.Join(dir, m.mark)); err == nil {
				return m.down(dir)
			}
		}
		return fmt.Errorf("nothing was brought up in %s", dir)
	}
	m, ok := managers[verb]
	if !ok {
		return fmt.Errorf("there is no manager %q; there are %s", verb, strings.Join(slices.Sorted(maps.Keys(managers)), ", "))
	}
	env, err := m.up(dir)
	if err != nil {
		return err
	}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		fmt.Printf("export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	return nil
}
