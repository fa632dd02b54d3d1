package testenv

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"os/exec"
	"testing"
)

//go:embed libxml2.py
var libxml2 string

// XPathCase is an expression to be evaluated on a document by libxml2.
type XPathCase struct {
	Document   string            `json:"document"`
	Expression string            `json:"expression"`
	Namespaces map[string]string `json:"namespaces"`
}

// XPathAnswer is what libxml2 made of it. Nodes are named by the number of their
// element in document order: "e3", "a3 {ns}name" for an attribute, "t3" for the
// text that begins element 3, "u3" for the text behind it; comments count as
// elements.
type XPathAnswer struct {
	Error  string   `json:"error"`
	Nodes  []string `json:"nodes"`
	Texts  []string `json:"texts"`  // the string values of Nodes
	XML    []string `json:"xml"`    // each element of Nodes as a document; "" for what is none
	Bool   *bool    `json:"bool"`   // of a boolean
	Number string   `json:"number"` // of a number, as string() has it
	Text   *string  `json:"text"`   // of a string
}

// XPath has libxml2 evaluate all cases in one process. Documents that are the same
// are best given next to each other.
func XPath(t testing.TB, cases []XPathCase) []XPathAnswer {
	t.Helper()
	var answers []XPathAnswer
	judge(t, "xpath", cases, &answers)
	if len(answers) != len(cases) {
		t.Fatalf("libxml2 answered %d of %d cases", len(answers), len(cases))
	}
	return answers
}

// SchemaCase is a document to be validated by a schema.
type SchemaCase struct {
	Schema   string `json:"schema"`
	Document string `json:"document"`
}

// Schema has libxml2 validate all cases in one process: "" for a valid document,
// "schema: …" where the schema is refused, else what is wrong.
func Schema(t testing.TB, cases []SchemaCase) []string {
	t.Helper()
	var answers []string
	judge(t, "schema", cases, &answers)
	if len(answers) != len(cases) {
		t.Fatalf("libxml2 answered %d of %d cases", len(answers), len(cases))
	}
	return answers
}

func judge(t testing.TB, what string, cases, answers any) {
	t.Helper()
	// Debian's own interpreter: another may stand before it in the path, without lxml.
	python := "/usr/bin/python3"
	if err := exec.CommandContext(t.Context(), python, "-c", "import lxml.etree").Run(); err != nil {
		Missing(t, "lxml is not installed: apt-get install python3-lxml")
	}
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", libxml2, what)
	cmd.Stdin = bytes.NewReader(in)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("libxml2: %v\n%s", err, said.Bytes())
	}
	if err := json.Unmarshal(out.Bytes(), answers); err != nil {
		t.Fatal(err)
	}
}
