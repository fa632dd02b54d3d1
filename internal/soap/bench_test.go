package soap

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkEndpoint is all that SOAP adds to an operation, both ways, without the
// network.
func BenchmarkEndpoint(b *testing.B) {
	e := echoEndpoint()
	e.newID, e.newReference = nil, nil
	for _, c := range []struct{ name, header, body string }{
		{"reply", action + wsa("MessageID", "urn:uuid:1") + wsa("To", "urn:x"), echoBody},
		{"fault", "", "<x/>"},
	} {
		msg := envelope(V12, c.header, c.body)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(msg))
				r.Header.Set("Content-Type", "application/soap+xml")
				e.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}
