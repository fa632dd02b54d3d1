package soap

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Intake reads what is passed on to an Endpoint elsewhere, within the bounds that an Endpoint has of size, time
// and bytes held at once.
type Intake struct{ e Endpoint }

// NewIntake gives one that holds so many bytes of messages at once, as Endpoint.InFlight has it.
func NewIntake(inFlight int64) *Intake { return &Intake{Endpoint{InFlight: inFlight}} }

// Message reads the message of a request, whose bytes count as held until release is called. Where it can't, it
// answers the request, and gives ok false.
func (in *Intake) Message(w http.ResponseWriter, r *http.Request) (message []byte, release func(), ok bool) {
	x := &exchange{e: &in.e, w: w, r: r}
	if _, ok := x.media(); !ok {
		return nil, nil, false
	}
	release = func() { in.e.held.Add(-x.held) }
	buf := &bytes.Buffer{}
	if ok = x.take(buf); ok {
		if most := in.e.Limits.EnsureDefaults().Bytes; int64(buf.Len()) > most {
			x.w.Header().Set("Connection", "close")
			x.fault(&Fault{Code: Sender, Status: http.StatusRequestEntityTooLarge, Reason: fmt.Sprintf("the message is larger than %d bytes", most)}, nil)
			ok = false
		}
	}
	if !ok {
		release()
		return nil, nil, false
	}
	return buf.Bytes(), release, true
}

// PatientBody gives the body of a request that is no message, as it comes: reading ends with os.ErrDeadlineExceeded
// where there is a pause, or it takes altogether, longer than a message may.
func PatientBody(w http.ResponseWriter, r *http.Request) io.ReadCloser {
	return &patientBody{body: r.Body, patient: patientReader{r: r.Body, control: http.NewResponseController(w), until: time.Now().Add(bodyTime)}}
}

type patientBody struct {
	body io.ReadCloser

	mu      sync.Mutex // of what is done to the connection, and not while it is read
	patient patientReader
	closed  bool
}

// Read implements io.Reader.
func (p *patientBody) Read(b []byte) (int, error) {
	p.mu.Lock()
	if p.closed { // whoever answered may be through with the connection
		p.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	p.patient.extend()
	p.mu.Unlock()
	n, err := p.body.Read(b)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.closed {
			p.patient.done()
		}
	}
	return n, err
}

// Close implements io.Closer.
func (p *patientBody) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.body.Close() // which waits for a read under way, no longer than that may take
	p.mu.Lock()
	defer p.mu.Unlock()
	p.patient.done()
	return err
}
