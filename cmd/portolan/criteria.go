package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/jsdl"
)

// wishes are what the command line adds to documents.
type wishes struct {
	criteria string // a file
	vo       string
}

func (w *wishes) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.criteria, "criteria", "", "add the criteria of this XML file")
	cmd.Flags().StringVar(&w.vo, "vo", "", "run on behalf of this virtual organisation")
	cobra.CheckErr(cmd.MarkFlagFilename("criteria", "xml"))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("vo", cobra.NoFileCompletions))
}

// apply changes the documents; names are those of their files.
func (a *app) apply(w wishes, documents [][]byte, names []string) error {
	var criteria []byte
	if w.criteria != "" {
		var file string
		var err error
		if criteria, file, err = a.document(w.criteria); err != nil {
			return err
		}
		var lines []string
		_, problems := jsdl.ParseCriteria(criteria, jsdl.Options{File: file})
		for _, p := range problems {
			if p.Severity != jsdl.Warning {
				lines = append(lines, problemLine(p))
			}
		}
		if len(lines) > 0 {
			return usagef("the criteria can't be used:\n%s", strings.Join(lines, "\n"))
		}
	}
	for i := range documents {
		var err error
		if w.criteria != "" {
			if documents[i], err = jsdl.AddCriteria(documents[i], criteria); err != nil {
				return usagef("%s: the criteria can't be added: %s", names[i], sentence(err))
			}
		}
		if w.vo != "" {
			if documents[i], err = jsdl.SetVO(documents[i], w.vo); err != nil {
				return usagef("%s: the VO can't be written: %s", names[i], sentence(err))
			}
		}
	}
	return nil
}
