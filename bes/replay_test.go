package bes_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/bes/bestest"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// capture is one recorded message: its head and its body.
type capture struct {
	name       string
	head, body []byte
	operation  string
	wellFormed bool
}

// captures gives the recorded messages of a kind, request or response.
func captures(t *testing.T, kind string) []capture {
	t.Helper()
	dir := filepath.Join(testenv.Shared(t), "samples", "captured")
	index, err := os.ReadFile(filepath.Join(dir, "INDEX.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var list []capture
	for line := range strings.Lines(string(index)) {
		f := strings.Split(line, "\t")
		if len(f) < 9 || f[2] != kind {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, f[0]))
		if err != nil {
			t.Fatal(err)
		}
		head, body, ok := bytes.Cut(raw, []byte("\r\n\r\n"))
		if !ok {
			if head, body, ok = bytes.Cut(raw, []byte("\n\n")); !ok {
				t.Fatalf("%s has no body", f[0])
			}
		}
		list = append(list, capture{f[0], head, body, f[3], f[8] == "yes"})
	}
	if len(list) == 0 {
		t.Fatalf("there is no %s in the index", kind)
	}
	return list
}

var lengths = regexp.MustCompile(`(?im)^(content-length|transfer-encoding):.*\r?\n?`)

// replay sends a recorded request over a socket: bodies are stored without their
// chunks, so the length is told instead.
func replay(t *testing.T, addr string, c capture, body []byte) (int, *xmldoc.Document) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := strings.TrimRight(lengths.ReplaceAllString(string(c.head), ""), "\r\n")
	if _, err := fmt.Fprintf(conn, "%s\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: http.MethodPost})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusContinue {
			continue
		}
		doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
		if err != nil {
			t.Fatalf("status %d, %v: %s", res.StatusCode, err, b)
		}
		return res.StatusCode, doc
	}
}

// TestReplayOfRealClients sends what real clients sent, byte for byte, and then
// once more as if they spoke of an activity of ours.
func TestReplayOfRealClients(t *testing.T) {
	svc := &bestest.Service{}
	srv := httptest.NewServer(bes.NewServer(svc, bes.ServerOptions{Verifier: soap.DevVerifier{}}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	made := func(t *testing.T) soap.EPR {
		ctx := soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous"})
		r, err := svc.CreateActivity(ctx, &bes.CreateActivityRequest{Document: []byte(job)})
		if err != nil {
			t.Fatal(err)
		}
		return r.Activity
	}
	stub := regexp.MustCompile(`>act-[0-9]+<`)
	var answers, management [][]byte
	replayed := 0
	for _, c := range captures(t, "request") {
		t.Run(c.name, func(t *testing.T) {
			status, doc := replay(t, addr, c, c.body)
			p := payload(t, doc)
			name := p.Name(p.Root())
			if version := doc.Name(doc.Root()).Space; bytes.Contains(c.body, []byte(soap.NS12)) != (version == soap.NS12) {
				t.Errorf("the answer is in the version %s", version)
			}
			vector := func(status int, p *xmldoc.Document, want string) {
				t.Helper()
				if status != http.StatusOK || p.Root().Tag != c.operation+"Response" {
					t.Fatalf("status %d: %s", status, p.Raw(p.Root()))
				}
				items := p.Root().ChildElements()
				if len(items) != bytes.Count(c.body, []byte("ActivityIdentifier>"))/2 && len(items) != 1 {
					t.Errorf("%d items", len(items))
				}
				for _, item := range items {
					if item.FindElement("./ActivityIdentifier/Address") == nil || item.FindElement(want) == nil {
						t.Errorf("an item lacks %s: %s", want, p.Raw(p.Root()))
					}
				}
			}
			ours := func() (int, *xmldoc.Document) {
				id, _ := bes.ActivityID(made(t))
				body := stub.ReplaceAll(c.body, []byte(">"+id+"<"))
				status, doc := replay(t, addr, c, bytes.ReplaceAll(body, []byte("urn:stub"), []byte(bes.NSPortolan)))
				return status, payload(t, doc)
			}
			good := true
			switch c.operation {
			case "CreateActivity":
				if !c.wellFormed {
					good = false
					if status != http.StatusInternalServerError || name.Local != "Fault" || !strings.Contains(p.Root().FindElement("faultcode").Text(), ":Client") ||
						!strings.Contains(p.Root().FindElement("faultstring").Text(), "posix") {
						t.Errorf("status %d: %s", status, p.Raw(p.Root()))
					}
					break
				}
				if status != http.StatusOK || name != (xmldoc.Name{Space: bes.NSFactory, Local: "CreateActivityResponse"}) {
					t.Fatalf("status %d: %s", status, p.Raw(p.Root()))
				}
				epr, err := soap.DecodeEPR(p.Root().FindElement("ActivityIdentifier"))
				if err != nil {
					t.Fatal(err)
				}
				// The sender's own bytes are kept: all that stands behind the start tag.
				_, inner, _ := bytes.Cut(svc.Document(epr), []byte(">"))
				if len(inner) < 100 || !bytes.Contains(c.body, inner) {
					t.Errorf("what was kept is %s", svc.Document(epr))
				}
			case "GetActivityStatuses":
				vector(status, p, "./Fault/detail/UnknownActivityIdentifierFault/Message")
				status, p := ours()
				vector(status, p, "./ActivityStatus[@state='Pending']")
			case "GetActivityDocuments":
				vector(status, p, "./Fault/detail/UnknownActivityIdentifierFault/Message")
				status, p := ours()
				vector(status, p, "./JobDefinition/JobDescription/Application")
			case "TerminateActivities":
				vector(status, p, "./Fault/detail/UnknownActivityIdentifierFault/Message")
				if p.Root().FindElement("./Response/Terminated").Text() != "false" {
					t.Error("Terminated is not false beside a fault")
				}
				status, p := ours()
				vector(status, p, "./Terminated[text()='true']")
			case "GetFactoryAttributesDocument":
				if status != http.StatusOK || p.Root().FindElement("./FactoryResourceAttributesDocument/IsAcceptingNewActivities") == nil {
					t.Errorf("status %d: %s", status, p.Raw(p.Root()))
				}
			case "StartAcceptingNewActivities", "StopAcceptingNewActivities":
				if status != http.StatusOK || name != (xmldoc.Name{Space: bes.NSManagement, Local: c.operation + "Response"}) {
					t.Errorf("status %d: %s", status, p.Raw(p.Root()))
				}
				management = append(management, p.Standalone(p.Root()))
				good = false
			default: // not an operation of BES: a fault that says what is
				good = false
				if status < 400 || name.Local != "Fault" || !strings.Contains(string(p.Raw(p.Root())), "GetFactoryAttributesDocument") {
					t.Errorf("status %d: %s", status, p.Raw(p.Root()))
				}
			}
			if good {
				answers = append(answers, p.Standalone(p.Root()))
			}
			replayed++
		})
	}
	if replayed < 60 {
		t.Errorf("only %d requests were replayed", replayed)
	}
	validate(t, "bes/gfd108-gridsam/bes-factory.xsd", answers...)
	validate(t, "bes/gfd108-gridsam/bes-management.xsd", management...)
}

// TestAnswersOfARealServer reads what A-REX answered.
func TestAnswersOfARealServer(t *testing.T) {
	for _, c := range captures(t, "response") {
		t.Run(c.name, func(t *testing.T) {
			client := bes.NewClient(&soap.Client{URL: "http://arex.example", Retries: -1, Transport: answering(http.StatusOK, string(c.body))})
			asked := []soap.EPR{bes.NewEPR("http://x", "1")}
			if strings.Contains(c.name, "one-unknown") {
				asked = append(asked, bes.NewEPR("http://x", "2"))
			}
			switch c.operation {
			case "GetActivityStatuses":
				r, err := client.GetActivityStatuses(t.Context(), &bes.StatusRequest{Activities: asked})
				if err != nil {
					t.Fatal(err)
				}
				last := r[len(r)-1]
				if last.Err != nil || last.Status.State != bes.Running || len(last.Status.Extensions) != 1 || last.Status.Extensions[0].Text() != "Submitting" {
					t.Errorf("the status is %+v", last)
				}
				if len(r) == 2 {
					wantUnknown(t, r[0].Err)
				}
			case "TerminateActivities":
				r, err := client.TerminateActivities(t.Context(), asked)
				if err != nil {
					t.Fatal(err)
				}
				wantUnknown(t, r[0].Err)
			case "GetActivityDocuments":
				r, err := client.GetActivityDocuments(t.Context(), asked)
				if err != nil || r[0].Err != nil {
					t.Fatal(err, r[0].Err)
				}
				validate(t, "jsdl/jsdl.xsd", r[0].Document)
				if !strings.Contains(string(r[0].Document), "hello &amp; goodbye") {
					t.Errorf("the document is %s", r[0].Document)
				}
			default:
				t.Errorf("%s is not looked at", c.operation)
			}
		})
	}
}
