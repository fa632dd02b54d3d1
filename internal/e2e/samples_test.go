package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
)

const factoryAction = bes.NSFactory + "/BESFactoryPortType/"

// declaration matches what may stand before a document and not inside another.
var declaration = regexp.MustCompile(`^\x{FEFF}?\s*(<\?xml [^>]*\?>)?`)

// submission puts a document into a CreateActivity message.
func submission(document []byte) []byte {
	inner := declaration.ReplaceAll(document, nil)
	return []byte(`<e:Envelope xmlns:e="` + soap.NS11 + `"><e:Body><b:CreateActivity xmlns:b="` + bes.NSFactory + `"><b:ActivityDocument>` +
		string(inner) + `</b:ActivityDocument></b:CreateActivity></e:Body></e:Envelope>`)
}

// needsLater reports whether a valid sample asks for what comes in a later
// version: staging, sweeps, foreign extensions, programs known by name only.
func needsLater(row map[string]string, runs bool) bool {
	for _, feature := range []string{"stage-in", "stage-out", "sweep", "extension", "foreign ns", "MPIApplication"} {
		if strings.Contains(row["exercises"], feature) {
			return true
		}
	}
	return strings.Contains(row["exercises"], "ApplicationName") && !runs
}

// executables says which samples name a program, by EXPECTED.json.
func executables(t *testing.T, dir string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "EXPECTED.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]struct {
		Jobs []json.RawMessage `json:"jobs"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	runs := map[string]bool{}
	named := regexp.MustCompile(`"Executable":\s*(\{[^}]*"value":\s*"|")`)
	for file, x := range all {
		for _, j := range x.Jobs {
			runs[file] = runs[file] || named.Match(j)
		}
	}
	return runs
}

// TestSampleDocuments submits every JSDL document over SOAP.
func TestSampleDocuments(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "samples/jsdl")
	g := start(t)
	judge := newSchemas(t)
	runs := executables(t, dir)
	counts := map[string]int{}
	for _, row := range index(t, filepath.Join(dir, "INDEX.tsv")) {
		t.Run(row["file"], func(t *testing.T) {
			document, err := os.ReadFile(filepath.Join(dir, row["file"]))
			if err != nil {
				t.Fatal(err)
			}
			status, _, body, err := post(t.Context(), g.endpoint, "text/xml; charset=utf-8", factoryAction+"CreateActivity", submission(document))
			if err != nil {
				t.Fatal(err)
			}
			e, err := readEnvelope(body)
			if err != nil {
				t.Fatalf("HTTP %d: %v", status, err)
			}
			judge.add(t, row["file"], e)
			outcome := e.name.Local
			if e.fault() {
				outcome = e.detail.Local
				if e.top != "Client" || status != http.StatusInternalServerError {
					t.Errorf("HTTP %d %s: wanted a Client fault with 500", status, e)
				}
			}
			counts[outcome]++
			switch kind := row["kind"]; {
			case kind == "malformed":
				if !e.fault() {
					t.Errorf("a message that is not well-formed got %s", e)
				}
			case kind == "other root", strings.HasPrefix(kind, "schema-invalid"):
				if outcome != "InvalidRequestMessageFault" {
					t.Errorf("%s: wanted InvalidRequestMessageFault, got %s", kind, e)
				}
			case needsLater(row, runs[row["file"]]):
				if outcome != "UnsupportedFeatureFault" {
					t.Errorf("%s: wanted UnsupportedFeatureFault, got %s", row["exercises"], e)
				}
			case outcome == "UnsupportedFeatureFault" && strings.Contains(e.reason, "/Resources"):
				t.Logf("no machine here has what it asks for: %s", e.reason)
			default:
				if outcome != "CreateActivityResponse" || status != http.StatusOK {
					t.Errorf("%s: wanted it accepted, got HTTP %d %s", kind, status, e)
				}
			}
		})
	}
	for _, want := range []string{"CreateActivityResponse", "InvalidRequestMessageFault", "UnsupportedFeatureFault"} {
		if counts[want] == 0 {
			t.Errorf("no document got %s: %v", want, counts)
		}
	}
	judge.judge(t)
}

// TestSampleMessages sends every sample message to the gateway. Only one of them
// asks for a BES operation; the others prove that a fault comes, the right one
// where the index names one, in the version of the message.
func TestSampleMessages(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "samples/soap")
	g := start(t)
	sent := 0
	for _, row := range index(t, filepath.Join(dir, "INDEX.tsv")) {
		raw, err := os.ReadFile(filepath.Join(dir, row["file"]))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(raw, []byte("Envelope")) || strings.Contains(row["expected"], "client side") {
			continue
		}
		sent++
		t.Run(row["file"], func(t *testing.T) {
			version, media := soap.V11, "text/xml; charset=utf-8"
			if bytes.Contains(raw, []byte(soap.NS12)) {
				version, media = soap.V12, "application/soap+xml; charset=utf-8"
			}
			status, _, body, err := post(t.Context(), g.endpoint, media, "", raw)
			if err != nil {
				t.Fatal(err)
			}
			e, err := readEnvelope(body)
			if err != nil {
				t.Fatalf("HTTP %d: %v", status, err)
			}
			if e.version != version && !strings.Contains(row["expected"], "VersionMismatch") {
				t.Errorf("answered in the other version of SOAP: %s", e)
			}
			if strings.HasPrefix(row["file"], "bes-") {
				if e.name.Local != "CreateActivityResponse" || len(e.header) != 0 {
					t.Errorf("wanted CreateActivityResponse without headers, got %s with %v", e, e.header)
				}
				return
			}
			if !e.fault() || e.reason == "" {
				t.Fatalf("wanted a fault with a sentence, got HTTP %d %s", status, e)
			}
			sender := e.top == "Client" || e.top == "Sender"
			switch want := row["expected"]; {
			case strings.Contains(want, "InvalidCardinality"):
				if e.code != "InvalidCardinality" {
					t.Errorf("wanted InvalidCardinality, got %s", e)
				}
			case strings.Contains(want, "VersionMismatch"):
				if e.top != "VersionMismatch" {
					t.Errorf("wanted VersionMismatch, got %s", e)
				}
			case strings.Contains(want, "ActionNotSupported"):
				if e.code != "ActionNotSupported" {
					t.Errorf("wanted ActionNotSupported, got %s", e)
				}
			case strings.Contains(want, "env:MustUnderstand") && !bytes.Contains(raw, []byte(`role="http://example.org/ts-tests/C"`)):
				if e.top != "MustUnderstand" {
					t.Errorf("wanted MustUnderstand, got %s", e)
				}
			default:
				// The W3C node understands headers that a gateway does not, and plays a
				// role of its own: MustUnderstand is right where that one replies, and
				// not where the header is for that role.
				if !sender && e.top != "MustUnderstand" && e.code == e.top && !strings.HasPrefix(e.top, "Invalid") && e.top != "ActionNotSupported" {
					t.Errorf("wanted a fault that blames the sender, got HTTP %d %s", status, e)
				}
			}
			if status != http.StatusInternalServerError && status != http.StatusBadRequest {
				t.Errorf("the fault came with HTTP %d", status)
			}
		})
	}
	if sent == 0 {
		t.Error("no sample was sent")
	}
}
