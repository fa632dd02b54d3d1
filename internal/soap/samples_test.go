package soap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func sample(t testing.TB, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{testenv.Shared(t), "samples"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wsaCode(local string) string { return in(NSWSA, local) }

// sampleOutcomes are the expectations of the samples' INDEX.tsv. want is "reply",
// or the codes of the fault from general to specific.
var sampleOutcomes = []struct {
	file    string
	want    []string
	status  int
	problem string // ProblemHeaderQName
	says    string // in the reason
}{
	{file: "soap12-w3c-t3.xml"},
	{file: "soap12-w3c-t11.xml"},
	{file: "soap12-w3c-t12.xml", want: []string{in(NS12, "MustUnderstand")}, status: 500},
	{file: "soap12-w3c-t16.xml", want: []string{in(NS12, "MustUnderstand")}, status: 500},
	{file: "soap12-w3c-t23.xml", want: []string{in(NS12, "Sender")}, status: 400},
	{file: "soap12-w3c-t30.xml", want: []string{in(NS11, "VersionMismatch")}, status: 500},
	{file: "soap12-w3c-t32.xml"},
	{file: "soap12-w3c-t34.xml"},
	{file: "soap12-w3c-t36.xml", want: []string{in(NS12, "MustUnderstand")}, status: 500},
	{file: "soap12-w3c-t37.xml"},
	{file: "soap12-w3c-t38-1.xml"},
	{file: "soap12-w3c-t39.xml", want: []string{in(NS12, "Sender")}, status: 400},
	{file: "soap12-w3c-t40.xml"},
	{file: "soap12-w3c-t67.xml"},
	{file: "soap12-w3c-t68.xml"},
	{file: "soap12-w3c-t74.xml"},
	{file: "soap12-w3c-t78.xml"},

	{file: "wsa-arc-delete-example.xml", want: []string{in(NS12, "Sender"), wsaCode("ActionNotSupported")}, status: 400, says: "Delete"},
	{file: "wsa-axis2-invalid-cardinality-final-invalidCardinalityActionMessage.xml", want: []string{wsaCode("InvalidCardinality")}, status: 500, problem: "Action"},
	{file: "wsa-axis2-invalid-cardinality-final-invalidCardinalityFaultToMessage.xml", want: []string{wsaCode("InvalidCardinality")}, status: 500, problem: "FaultTo"},
	{file: "wsa-axis2-invalid-cardinality-final-invalidCardinalityReplyToMessage.xml", want: []string{wsaCode("InvalidCardinality")}, status: 500, problem: "ReplyTo"},
	{file: "wsa-axis2-invalid-cardinality-final-invalidCardinalityToMessage.xml", want: []string{wsaCode("InvalidCardinality")}, status: 500, problem: "To"},
	// The headers are accepted; the Body is RPC-encoded, with a second element.
	{file: "wsa-axis2-omitted-header-final-noFromMessage.xml", want: []string{in(NS11, "Client")}, status: 500, says: "second element"},
	{file: "wsa-axis2-soap11roleTest.xml"},
	// Headers for the other role are ignored (no InvalidCardinality); those for us are junk.
	{file: "wsa-axis2-valid-final-soapmessage.customrole.xml", want: []string{wsaCode("InvalidAddress")}, status: 500, problem: "ReplyTo"},
	{file: "wsa-axis2-valid-final-soapmessage.customrole.soap12.xml", want: []string{in(NS12, "Sender"), wsaCode("InvalidAddressingHeader"), wsaCode("InvalidAddress")}, status: 400, problem: "ReplyTo"},
	{file: "wsa-axis2-valid-submission-soapmessage.xml", want: []string{in(NS11, "Client")}, status: 500, says: "second element"},

	{file: "soap-cxf-test-no-endenv.xml", want: []string{in(NS12, "Sender")}, status: 400, says: "ends inside"},
	{file: "soap-cxf-test-soap-header.xml", want: []string{in(NS11, "MustUnderstand")}, status: 500, says: "reservation"},

	{file: "wss-cxf-emptyheaderrequest.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-cxf-noheadersrequest.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-cxf-wsse-request-clean.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-cxf-encrypted-missing-enc-header.xml", want: []string{in(NS11, "Client")}, status: 500, says: "EncryptedData"},
	{file: "wss-wss4j-securityheadertest-two-actor-msg.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-wss4j-usernametokentest-empty-password-msg.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-wss4j-usernametokentest-soaputmsg.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-cxf-request-with-comment.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-cxf-request-with-trailing-whitespace.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-cxf-signed-x509-direct-ref.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-cxf-signed-x509-issuer-serial.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-cxf-signed-x509-issuer-serial-missing-signed-body.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
	{file: "wss-cxf-signed-x509-issuer-serial-token-prot.xml", want: []string{in(NS11, "Client")}, status: 500, says: "no operation"},
}

// w3cNode is the node of the W3C collection: it understands test:echoOk and
// test:requiredHeader and plays role C.
func w3cNode() *Endpoint {
	e := echoEndpoint()
	const ns = "http://example.org/ts-tests"
	e.Roles = []string{ns + "/C"}
	e.Understands = func(n xmldoc.Name) bool {
		return n == xmldoc.Name{Space: ns, Local: "echoOk"} || n == xmldoc.Name{Space: ns, Local: "requiredHeader"}
	}
	echo := e.Operations[xmldoc.Name{Space: testNS, Local: "Echo"}]
	for _, local := range []string{"echoOk", "echoHeader"} {
		e.Operations[xmldoc.Name{Space: ns, Local: local}] = echo
	}
	return e
}

func TestSamples(t *testing.T) {
	covered := map[string]bool{}
	for _, c := range sampleOutcomes {
		covered[c.file] = true
		t.Run(c.file, func(t *testing.T) {
			msg := sample(t, "soap", c.file)
			contentType := "text/xml; charset=utf-8"
			if strings.Contains(msg, NS12) {
				contentType = "application/soap+xml; charset=utf-8"
			}
			a := post(t, w3cNode(), contentType, msg)
			if c.want == nil {
				a.wantReply(t)
				return
			}
			a.wantFault(t, c.status, c.want...)
			if c.says != "" && !strings.Contains(a.body, c.says) {
				t.Errorf("the reason does not say %q:\n%s", c.says, a.body)
			}
			if c.problem != "" {
				a.wantProblem(t, c.problem)
			}
			for _, code := range c.want {
				if code == in(NS12, "MustUnderstand") {
					a.wantNotUnderstood(t, "http://example.org/ts-tests", "Unknown")
				}
			}
		})
	}
	files, err := filepath.Glob(filepath.Join(testenv.Shared(t), "samples", "soap", "*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no samples")
	}
	clientSide := []string{"soap-cxf-saaj-soap12-fault.xml", "wsa-axis2-fault-soap12-"}
	for _, f := range files {
		name := filepath.Base(f)
		for _, family := range []string{"soap12-w3c-", "wsa-", "soap-cxf-", "wss-"} {
			if !strings.HasPrefix(name, family) || covered[name] {
				continue
			}
			if strings.HasPrefix(name, clientSide[0]) || strings.HasPrefix(name, clientSide[1]) {
				continue // in client_test.go
			}
			t.Errorf("%s is not tested", name)
		}
	}
}

// wantProblem looks for the ProblemHeaderQName where the version has it.
func (a answer) wantProblem(t testing.TB, local string) {
	t.Helper()
	detail := a.block(NSWSA, "FaultDetail")
	if a.version() == V12 {
		detail = xmldoc.Child(a.payload(), NS12, "Detail")
	}
	if detail == nil {
		t.Fatalf("no detail:\n%s", a.body)
	}
	p := xmldoc.Child(detail, NSWSA, "ProblemHeaderQName")
	if p == nil {
		t.Fatalf("no ProblemHeaderQName:\n%s", a.body)
	}
	n, err := xmldoc.ResolveQName(p, xmldoc.Text(p))
	if err != nil || n != (xmldoc.Name{Space: NSWSA, Local: local}) {
		t.Errorf("ProblemHeaderQName %v (%v), want wsa:%s", n, err, local)
	}
	if a.version() == V11 && xmldoc.Child(a.payload(), "", "detail") != nil {
		t.Errorf("a header fault has a detail:\n%s", a.body)
	}
}

func (a answer) wantNotUnderstood(t testing.TB, space, local string) {
	t.Helper()
	b := a.block(NS12, "NotUnderstood")
	if b == nil {
		t.Fatalf("no NotUnderstood:\n%s", a.body)
	}
	n, err := xmldoc.ResolveQName(b, b.SelectAttrValue("qname", ""))
	if err != nil || n != (xmldoc.Name{Space: space, Local: local}) {
		t.Errorf("NotUnderstood %v (%v)", n, err)
	}
}
