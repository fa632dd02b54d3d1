package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/jsdl"
)

// maxDocument bounds what is read of a file; the reader of the document has
// stricter limits of its own.
const maxDocument = 64 << 20

// document reads a file, or standard input for "-".
func (a *app) document(path string) (b []byte, name string, err error) {
	r, name := a.in, "<stdin>"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, path, usagef("the document could not be read: %v", err)
		}
		defer f.Close()
		r, name = f, path
	}
	b, err = io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, name, usagef("the document could not be read: %v", err)
	}
	if len(b) > maxDocument {
		return nil, name, usagef("%s has more than %d MiB; that is no job description", name, maxDocument>>20)
	}
	return b, name, nil
}

func (a *app) validateCmd() *cobra.Command {
	var lenient, runnable bool
	var form string
	cmd := &cobra.Command{
		Use:   "validate [--lenient] [--runnable] [-o text|json] FILE…",
		Short: "Check JSDL documents without a gateway",
		Long: `Check JSDL documents against the standard (JSDL 1.0, POSIX and HPC Profile applications),
without a gateway. '-' is standard input. Files of criteria (submit --criteria) are checked too.

Each finding is one line on standard output: file:line:col: what is wrong. Lines that
begin with "unsupported" or "warning" after the place do not fail: the document is valid,
but this version of the gateway would refuse it, or something in it is worth a thought.
With --runnable, what is unsupported fails too.

--lenient reads as a gateway does, which takes some habits of real clients; each is told
as a warning.

Exit codes: 0 all are valid; 1 one is not; 2 wrong usage.`,
		Example: `  portolan validate job.jsdl
  portolan validate --runnable *.jsdl`,
		Args: needs(1, 0, "a FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			type finding struct {
				File     string `json:"file"`
				Line     int    `json:"line"`
				Column   int    `json:"column"`
				Element  string `json:"element"`
				Severity string `json:"severity"`
				What     string `json:"what"`
				Want     string `json:"want"`
			}
			findings := []finding{}
			bad := false
			for _, path := range args {
				b, name, err := a.document(path)
				if err != nil {
					return err
				}
				o := jsdl.Options{File: name, Lenient: lenient}
				job, problems := jsdl.Parse(b, o)
				if job == nil {
					if c, of := jsdl.ParseCriteria(b, o); c != nil {
						problems = of
					}
				}
				for _, p := range problems {
					bad = bad || p.Severity == jsdl.Invalid || runnable && p.Severity == jsdl.Unsupported
					findings = append(findings, finding{p.File, p.Pos.Line, p.Pos.Column, p.Element, p.Severity.String(), p.What, p.Want})
					if form == "text" {
						fmt.Fprintln(a.out, problemLine(p))
					}
				}
			}
			if form == "json" {
				if err := asJSON(a.out, findings); err != nil {
					return err
				}
			}
			if bad {
				return quietly(exitFailed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&lenient, "lenient", false, "take the habits of real clients that a gateway takes")
	cmd.Flags().BoolVar(&runnable, "runnable", false, "fail also for what is valid but cannot be run by this version")
	formFlag(cmd, &form, "text", "json")
	return cmd
}

// problemLine tells a problem as compilers do. What is invalid needs no word.
func problemLine(p jsdl.Problem) string {
	s := p.File + ":"
	if !p.Pos.IsZero() {
		s += p.Pos.String() + ":"
	}
	if p.Severity != jsdl.Invalid {
		s += " " + p.Severity.String() + ":"
	}
	return plain(s + " " + p.Sentence())
}
