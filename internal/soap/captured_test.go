package soap

import (
	"bufio"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// TestCapturedRequests replays what real clients sent to an endpoint that echoes
// whatever it is asked: each must get through to the operation, in its own
// version; those that are not well-formed get a fault of theirs.
func TestCapturedRequests(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testenv.Shared(t), "samples", "captured", "*.request.http"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured requests: %v", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			raw := sample(t, "captured", name)
			head, body, _ := strings.Cut(raw, "\r\n\r\n")
			// Chunked bodies were stored without their chunks.
			head = strings.ReplaceAll(head, "Transfer-Encoding: chunked", fmt.Sprintf("Content-Length: %d", len(body)))
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n\r\n" + body)))
			if err != nil {
				t.Fatal(err)
			}
			e := echoEndpoint()
			v, want := V11, xmldoc.Name{}
			if doc, err := xmldoc.ReadBytes([]byte(body), xmldoc.Limits{}); err == nil {
				p, f := parseEnvelope(doc, nil)
				if f != nil {
					t.Fatal(f)
				}
				v, want = p.Version, doc.Name(p.Body.ChildElements()[0])
				e.Operations[want] = e.Operations[xmldoc.Name{Space: testNS, Local: "Echo"}]
			} else if !strings.Contains(name, "malformed") {
				t.Fatal(err)
			}
			a := ask(t, e, r)
			if strings.Contains(name, "malformed") {
				a.wantFault(t, 500, in(NS11, "Client"))
				if !strings.Contains(a.body, "posix") {
					t.Errorf("the fault does not name the prefix:\n%s", a.body)
				}
				return
			}
			a.wantReply(t)
			if a.version() != v || xmldoc.Child(a.payload(), want.Space, want.Local) == nil {
				t.Errorf("asked %s in %s:\n%s", want, v, a.body)
			}
			if strings.Contains(body, "MessageID") && a.block(NSWSA, "RelatesTo") == nil {
				t.Errorf("the answer relates to nothing:\n%s", a.body)
			}
		})
	}
}
