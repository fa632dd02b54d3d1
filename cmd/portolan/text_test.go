package main

import (
	"strings"
	"testing"
	"unicode"
)

func TestWhatComesFromElsewhereCannotSteerTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[31mb":   "a\uFFFD[31mb",
		"a\nb\tc":      "a b c",
		"a\u202Eb":     "a\uFFFDb",
		"a\xffb":       "a\uFFFDb",
		"a\u009bb":     "a\uFFFDb",
		"grüße, 世界 ok": "grüße, 世界 ok",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
	if got := plainLines("a\r\nb\x07\n"); got != "a\nb\uFFFD\n" {
		t.Errorf("%q", got)
	}
}

func TestTableIsPlain(t *testing.T) {
	var b strings.Builder
	if err := table(&b, []string{"ID", "NAME"}, [][]string{{"1", "x\x1b]0;t\x07\ny"}, {"2", ""}}); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "ID  NAME\n1   x\uFFFD]0;t\uFFFD y\n2   -\n"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("a\x1b[0m\u202e\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range plain(s) {
			if !unicode.IsPrint(r) {
				t.Errorf("%q lets %U through", s, r)
			}
		}
	})
}
