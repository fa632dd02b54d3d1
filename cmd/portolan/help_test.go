package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEachVerbHasHelpAndAnExample(t *testing.T) {
	a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard, env: func(string) string { return "" }}
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no short help, or no example of its own", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	root := a.root()
	check(root)
	if len(root.Commands()) < 12 {
		t.Errorf("only %d verbs", len(root.Commands()))
	}
}
