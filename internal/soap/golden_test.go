package soap

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var update = flag.Bool("update", false, "rewrite the golden messages")

// goldenEndpoint has one operation more: t:Fail, whose error has a sentence.
func goldenEndpoint() *Endpoint {
	e := echoEndpoint()
	detail := etree.NewElement("t:WrongFault")
	detail.CreateAttr("xmlns:t", testNS)
	detail.CreateElement("t:Message").SetText("a < b")
	name := xmldoc.Name{Space: testNS, Local: "Fail"}
	e.Operations[name] = &Operation{
		Name: name, Action: "urn:test/Fail", FaultAction: "urn:test/Fault",
		Handle: func(context.Context, *Verified) (*etree.Element, error) {
			return nil, fail.Errorf("test", fail.Invalid, "x", "a must not be less than b: make it larger")
		},
	}
	e.FaultOf = func(err error, _ *Operation, _ Version) *Fault {
		return &Fault{Code: Sender, Subcodes: []xmldoc.Name{{Space: testNS, Local: "Wrong"}}, Reason: fail.Sentence(err), Detail: []*etree.Element{detail}}
	}
	return e
}

// TestGolden: each file of testdata has a request as it is sent and the answer;
// line breaks are put between the tags of the answer to make it readable.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden messages")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil || len(ar.Files) != 2 || ar.Files[0].Name != "request" || ar.Files[1].Name != "answer" {
				t.Fatalf("want a request and an answer: %v", err)
			}
			head, body, _ := strings.Cut(string(ar.Files[0].Data), "\n\n")
			head = strings.ReplaceAll(head, "\n", "\r\n") + fmt.Sprintf("\r\nHost: gateway.example\r\nContent-Length: %d", len(body))
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n\r\n" + body)))
			if err != nil {
				t.Fatal(err)
			}
			a := ask(t, goldenEndpoint(), r)
			got := fmt.Sprintf("%d %s\nContent-Type: %s\n\n%s\n", a.status, http.StatusText(a.status), a.header.Get("Content-Type"), strings.ReplaceAll(a.body, "><", ">\n<"))
			if *update {
				ar.Files[1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(ar.Files[1].Data); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
