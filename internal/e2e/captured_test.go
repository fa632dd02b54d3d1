package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// index reads an INDEX.tsv as rows by column name.
func index(t testing.TB, path string) []map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var columns []string
	var rows []map[string]string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(line, "\t")
		if columns == nil {
			columns = cells
			continue
		}
		row := map[string]string{}
		for i, c := range cells {
			if i < len(columns) {
				row[columns[i]] = c
			}
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no rows", path)
	}
	return rows
}

// wire is a captured message, cut at the end of its headers.
type wire struct {
	head []byte // with the empty line
	body []byte
	http.Header
}

func cut(b []byte) (wire, error) {
	i := bytes.Index(b, []byte("\r\n\r\n"))
	n := 4
	if i < 0 {
		i, n = bytes.Index(b, []byte("\n\n")), 2
	}
	if i < 0 {
		return wire{}, errors.New("no empty line ends the headers")
	}
	w := wire{head: b[:i+n], body: b[i+n:], Header: http.Header{}}
	for line := range strings.Lines(string(b[:i])) {
		if k, v, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			w.Add(k, strings.TrimSpace(v))
		}
	}
	return w, nil
}

// chunk writes a body in two chunks: it was stored without its chunks under the
// headers that announce them.
func chunk(body []byte) []byte {
	var b bytes.Buffer
	half := len(body) / 2
	for _, part := range [][]byte{body[:half], body[half:]} {
		if len(part) > 0 {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
		}
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}

// replay sends the bytes over a socket of their own and gives the reply.
func replay(ctx context.Context, address string, raw []byte) (*http.Response, []byte, error) {
	w, err := cut(raw)
	if err != nil {
		return nil, nil, err
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, nil, err
	}
	body := w.body
	if strings.EqualFold(w.Get("Transfer-Encoding"), "chunked") {
		body = chunk(body)
	} else if n, err := strconv.Atoi(w.Get("Content-Length")); err != nil || n != len(body) {
		return nil, nil, fmt.Errorf("Content-Length is %q and the body has %d bytes", w.Get("Content-Length"), len(body))
	}
	r := bufio.NewReader(c)
	if _, err := c.Write(w.head); err != nil {
		return nil, nil, err
	}
	if strings.EqualFold(w.Get("Expect"), "100-continue") {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("waiting for 100 Continue: %w", err)
		}
		if res.StatusCode != http.StatusContinue {
			return nil, nil, fmt.Errorf("wanted 100 Continue, got %s", res.Status)
		}
	}
	if _, err := c.Write(body); err != nil {
		return nil, nil, err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	return res, b, err
}

// TestCapturedRequests replays what real clients sent, byte for byte, and looks
// at the answer: operation, version, status, addressing, schema.
func TestCapturedRequests(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "samples/captured")
	g := start(t)
	judge := newSchemas(t)
	requests := 0
	for _, row := range index(t, filepath.Join(dir, "INDEX.tsv")) {
		if row["kind"] != "request" {
			continue
		}
		requests++
		t.Run(row["file"], func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join(dir, row["file"]))
			if err != nil {
				t.Fatal(err)
			}
			res, body, err := replay(t.Context(), g.address, raw)
			if err != nil {
				t.Fatal(err)
			}
			e, err := readEnvelope(body)
			if err != nil {
				t.Fatalf("HTTP %d: %v", res.StatusCode, err)
			}
			judgeCaptured(t, row, raw, res, e)
			judge.add(t, row["file"], e)
		})
	}
	if requests == 0 {
		t.Error("the index lists no requests")
	}
	judge.judge(t)
}

func judgeCaptured(t *testing.T, row map[string]string, raw []byte, res *http.Response, e *envelope) {
	t.Helper()
	version := map[string]soap.Version{"1.1": soap.V11, "1.2": soap.V12}[row["soap"]]
	if e.version != version {
		t.Errorf("asked in SOAP %s, answered in the other version", row["soap"])
	}
	media := map[soap.Version]string{soap.V11: "text/xml", soap.V12: "application/soap+xml"}[version]
	if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, media) {
		t.Errorf("Content-Type %q: wanted %s", got, media)
	}
	op := row["operation"]
	sender := map[soap.Version]string{soap.V11: "Client", soap.V12: "Sender"}[version]
	senderStatus := map[soap.Version]int{soap.V11: 500, soap.V12: 400}[version]
	wantFault := row["well_formed"] != "yes"
	space := bes.NSFactory
	switch op {
	case "CreateActivity", "GetActivityStatuses", "TerminateActivities", "GetActivityDocuments", "GetFactoryAttributesDocument":
	case "StartAcceptingNewActivities", "StopAcceptingNewActivities":
		space = bes.NSManagement
	default: // operations of other port types than BES
		wantFault = true
	}
	if wantFault {
		// What was sent to a path that nothing serves is told so by HTTP as well.
		elsewhere := res.StatusCode == http.StatusNotFound && !bytes.Contains(raw, []byte("/bes"))
		if !e.fault() || (res.StatusCode != senderStatus && !elsewhere) || (e.top != sender && e.top != "ActionNotSupported") {
			t.Errorf("wanted a fault %s, got HTTP %d %s", sender, res.StatusCode, e)
		}
		if e.reason == "" {
			t.Error("the fault has no sentence")
		}
		if row["well_formed"] != "yes" {
			return // nothing of the headers can be relied on
		}
	} else {
		if e.name != (xmldoc.Name{Space: space, Local: op + "Response"}) || res.StatusCode != http.StatusOK {
			t.Fatalf("wanted %sResponse, got HTTP %d %s", op, res.StatusCode, e)
		}
		wantItems(t, op, raw, e)
	}
	id := requestHeader(t, raw, "MessageID")
	related := e.header[xmldoc.Name{Space: soap.NSWSA, Local: "RelatesTo"}]
	action := e.header[xmldoc.Name{Space: soap.NSWSA, Local: "Action"}]
	if id != related {
		t.Errorf("wsa:RelatesTo is %q and the request's MessageID %q", related, id)
	}
	switch engaged := row["wsa_headers"] != "-"; {
	case !engaged && action != "":
		t.Errorf("the reply has a wsa:Action though the request had no addressing headers")
	case engaged && !wantFault && action != space+"/"+map[string]string{bes.NSFactory: "BESFactoryPortType", bes.NSManagement: "BESManagementPortType"}[space]+"/"+op+"Response":
		t.Errorf("wsa:Action of the reply is %q", action)
	case engaged && wantFault && action == "":
		t.Error("the fault has no wsa:Action")
	}
}

// requestHeader gives the text of a WS-Addressing header of a captured request.
func requestHeader(t *testing.T, raw []byte, local string) string {
	t.Helper()
	w, err := cut(raw)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := xmldoc.ReadBytes(w.body, xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	h := xmldoc.Child(doc.Root(), xmldoc.NameOf(doc.Root()).Space, "Header")
	if h == nil {
		return ""
	}
	if m := xmldoc.Child(h, soap.NSWSA, local); m != nil {
		return xmldoc.Collapse(xmldoc.Text(m))
	}
	return ""
}

// wantItems looks into the answers about activities: the captured identifiers
// were a stub's, so that each gets a fault of its own, in order, echoed.
func wantItems(t *testing.T, op string, raw []byte, e *envelope) {
	t.Helper()
	root := mustRead(t, e.body).Root()
	switch op {
	case "CreateActivity":
		if id := xmldoc.Child(root, bes.NSFactory, "ActivityIdentifier"); id == nil || xmldoc.Child(id, soap.NSWSA, "Address") == nil {
			t.Errorf("the response has no ActivityIdentifier with an Address")
		}
	case "GetActivityStatuses", "TerminateActivities", "GetActivityDocuments":
		w, err := cut(raw)
		if err != nil {
			t.Fatal(err)
		}
		asked := vectorLength(t, w.body)
		items := root.ChildElements()
		if len(items) != asked || asked == 0 {
			t.Fatalf("%d identifiers got %d items", asked, len(items))
		}
		for _, it := range items {
			f := xmldoc.Child(it, bes.NSFactory, "Fault")
			if f == nil {
				t.Errorf("an activity of elsewhere has no Fault")
				continue
			}
			d := xmldoc.Child(f, "", "detail")
			if d == nil || xmldoc.Child(d, bes.NSFactory, "UnknownActivityIdentifierFault") == nil {
				t.Errorf("the item's fault is not UnknownActivityIdentifierFault")
			}
			id := xmldoc.Child(it, bes.NSFactory, "ActivityIdentifier")
			if id == nil || xmldoc.Child(id, soap.NSWSA, "Address") == nil {
				t.Errorf("the item does not echo the identifier")
			}
			if op == "TerminateActivities" {
				if v := xmldoc.Child(it, bes.NSFactory, "Terminated"); v == nil || xmldoc.Text(v) != "false" {
					t.Errorf("Terminated is not false")
				}
			}
		}
	}
}

func mustRead(t testing.TB, b []byte) *xmldoc.Document {
	t.Helper()
	d, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestCapturedResponses has our client read what a foreign server answered.
func TestCapturedResponses(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "samples/captured")
	responses := 0
	for _, row := range index(t, filepath.Join(dir, "INDEX.tsv")) {
		if row["kind"] != "response" {
			continue
		}
		responses++
		t.Run(row["file"], func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join(dir, row["file"]))
			if err != nil {
				t.Fatal(err)
			}
			w, err := cut(raw)
			if err != nil {
				t.Fatal(err)
			}
			c, eprs := foreign(t, row["operation"], w)
			unknown := strings.Contains(row["file"], "unknown")
			faults := 0
			count := func(err error) {
				if err == nil {
					return
				}
				faults++
				if !fail.Is(err, fail.NotFound) && !fail.Is(err, fail.Invalid) {
					t.Errorf("the item's fault is a %s: %v", fail.KindOf(err), err)
				}
			}
			switch row["operation"] {
			case "GetActivityStatuses":
				got, err := c.GetActivityStatuses(t.Context(), &bes.StatusRequest{Activities: eprs})
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range got {
					count(r.Err)
					if r.Err == nil && r.Status.State == "" {
						t.Error("a status without a state")
					}
				}
			case "GetActivityDocuments":
				got, err := c.GetActivityDocuments(t.Context(), eprs)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range got {
					count(r.Err)
					if r.Err == nil && len(r.Document) == 0 {
						t.Error("no document")
					}
				}
			case "TerminateActivities":
				got, err := c.TerminateActivities(t.Context(), eprs)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range got {
					count(r.Err)
				}
			default:
				t.Fatalf("no way to read %s", row["operation"])
			}
			if unknown != (faults > 0) {
				t.Errorf("%d faults", faults)
			}
		})
	}
	if responses == 0 {
		t.Error("the index lists no responses")
	}
}

// foreign gives a client of a server that answers everything with the captured
// response, and the EPRs that the response is about.
func foreign(t *testing.T, operation string, w wire) (*bes.Client, []soap.EPR) {
	t.Helper()
	e, err := readEnvelope(w.body)
	if err != nil {
		t.Fatal(err)
	}
	if e.name.Local != operation+"Response" {
		t.Fatalf("the response is %s", e.name)
	}
	var eprs []soap.EPR
	for _, it := range mustRead(t, e.body).Root().ChildElements() {
		for _, id := range it.ChildElements() {
			if xmldoc.NameOf(id).Local == "ActivityIdentifier" {
				a := xmldoc.Child(id, soap.NSWSA, "Address")
				if a == nil {
					t.Fatal("an ActivityIdentifier without an Address")
				}
				epr := soap.EPR{Address: xmldoc.Collapse(xmldoc.Text(a)), Source: xmldoc.Detach(id)}
				if r := xmldoc.Child(id, soap.NSWSA, "ReferenceParameters"); r != nil {
					for _, p := range r.ChildElements() {
						epr.ReferenceParameters = append(epr.ReferenceParameters, xmldoc.Detach(p))
					}
				}
				eprs = append(eprs, epr)
			}
		}
	}
	return bes.NewClient(&soap.Client{URL: "http://a-rex.invalid/bes", Transport: answering{w}, Retries: -1}), eprs
}

// answering is a transport that gives one response to everything.
type answering struct{ w wire }

// RoundTrip drains the request and gives the response.
func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	h := a.w.Clone()
	h.Del("Content-Length")
	h.Del("Transfer-Encoding")
	return &http.Response{
		StatusCode: 200, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(bytes.NewReader(a.w.body)), ContentLength: int64(len(a.w.body)), Request: r,
	}, nil
}

// vectorLength counts the identifiers of a request, whatever namespace they are in.
func vectorLength(t testing.TB, message []byte) int {
	t.Helper()
	root := mustRead(t, message).Root()
	body := xmldoc.Child(root, xmldoc.NameOf(root).Space, "Body")
	n := 0
	for _, c := range body.ChildElements()[0].ChildElements() {
		if xmldoc.NameOf(c).Local == "ActivityIdentifier" {
			n++
		}
	}
	return n
}
