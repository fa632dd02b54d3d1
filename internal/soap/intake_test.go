package soap

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// TestIntake: what is passed on is bounded as an Endpoint's messages are, in size, in time and together.
func TestIntake(t *testing.T) {
	in := NewIntake(1000)
	take := func(kind string, body io.Reader, length int64) (*stalling, string, func()) {
		w := &stalling{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest(http.MethodPost, "/x", body)
		r.Header.Set("Content-Type", kind)
		r.ContentLength = length
		got, release, ok := in.Message(w, r)
		if ok != (release != nil) {
			t.Fatalf("ok is %v, and there is something to release: %v", ok, release != nil)
		}
		return w, string(got), release
	}
	long := strings.Repeat("x", 5000) // one is always taken
	w, got, release := take("text/xml", strings.NewReader(long), -1)
	if got != long || release == nil {
		t.Fatalf("%d %.100s", w.Code, w.Body)
	}
	if len(w.deadlines) != 2 || w.deadlines[0].IsZero() || !w.deadlines[1].IsZero() {
		t.Errorf("deadlines %v: want one, then none", w.deadlines)
	}
	most := xmldoc.Limits{}.EnsureDefaults().Bytes
	for name, c := range map[string]struct {
		kind   string
		body   io.Reader
		length int64
		status int
		says   string
	}{
		"another beside it":         {"text/xml", strings.NewReader("<a/>"), -1, http.StatusServiceUnavailable, "<faultstring"},
		"another beside it, in 1.2": {"application/soap+xml", strings.NewReader("<a/>"), -1, http.StatusServiceUnavailable, "Receiver"},
		"no message":                {"text/plain", strings.NewReader("<a/>"), 4, http.StatusUnsupportedMediaType, "send SOAP"},
		"said to be too long":       {"text/xml", strings.NewReader("<a/>"), most + 1, http.StatusRequestEntityTooLarge, "larger than"},
	} {
		w, _, release := take(c.kind, c.body, c.length)
		if release != nil || w.Code != c.status || !strings.Contains(w.Body.String(), c.says) || c.status == http.StatusServiceUnavailable && w.Header().Get("Retry-After") != "5" {
			t.Errorf("%s: %d, %v, %s", name, w.Code, w.Header(), w.Body)
		}
	}
	release()
	if n := in.e.held.Load(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
	if w, _, release = take("text/xml", io.LimitReader(endless{}, most+10), -1); release != nil || w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("too long: %d %s", w.Code, w.Body)
	}
	if w, _, release = take("text/xml", expired{}, -1); release != nil || w.Code != http.StatusRequestTimeout {
		t.Errorf("too slow: %d %s", w.Code, w.Body)
	}
	if n := in.e.held.Load(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestPatientBody: what comes slowly is not waited for for ever; and the connection is left as it was, whoever reads
// on when it was answered.
func TestPatientBody(t *testing.T) {
	for name, c := range map[string]struct {
		body io.Reader
		ends error
	}{
		"it ends":      {strings.NewReader("x"), io.EOF},
		"it is slow":   {expired{}, os.ErrDeadlineExceeded},
		"it is closed": {endless{}, nil},
	} {
		began := time.Now()
		w := &stalling{ResponseRecorder: httptest.NewRecorder()}
		body := PatientBody(w, httptest.NewRequest(http.MethodPut, "/x", c.body))
		var err error
		for range 3 {
			if _, err = body.Read(make([]byte, 8)); err != nil {
				break
			}
		}
		if !errors.Is(err, c.ends) {
			t.Errorf("%s: %v", name, err)
		}
		if d := w.deadlines; len(d) == 0 || d[0].Before(began.Add(bodyPause)) || d[0].After(time.Now().Add(bodyPause)) {
			t.Errorf("%s: deadlines %v", name, d)
		}
		if err := body.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		n := len(w.deadlines)
		if !w.deadlines[n-1].IsZero() {
			t.Errorf("%s: deadlines %v", name, w.deadlines)
		}
		if _, err := body.Read(make([]byte, 8)); err == nil || len(w.deadlines) != n {
			t.Errorf("%s: read after it was closed: %v, deadlines %v", name, err, w.deadlines)
		}
	}
	w := &stalling{ResponseRecorder: httptest.NewRecorder()}
	b := PatientBody(w, httptest.NewRequest(http.MethodPut, "/x", endless{})).(*patientBody)
	b.patient.until = time.Now().Add(time.Second)
	_, _ = b.Read(make([]byte, 8))
	if !w.deadlines[0].Equal(b.patient.until) {
		t.Errorf("a pause must not go beyond the whole time: %v", w.deadlines)
	}
}
