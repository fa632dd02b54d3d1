package boinctest

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Fault is what befalls requests of one kind.
type Fault struct {
	// Path and Operation choose the requests: the script's name and the root element
	// of its request; "" is any.
	Path, Operation string
	Times           int           // how many; 0 is one, less than 0 all
	Delay           time.Duration // before the work is done
	Refuse          bool          // the connection is cut before anything is done
	Cut             bool          // the connection is cut after the work is done: its answer is lost
	Truncate        int           // bytes of the answer that come, and then the connection ends
	Status          int           // this status, with nothing done
	Body            string        // of that status, with the content type text/html
	NoDatabase      bool          // the database can't be reached
	Midway          bool          // submit_batch fails after the batch's row was made
	StateLost       bool          // submit_batch fails after the jobs were made
	Replace         func([]byte) []byte
}

// faults are those that are set.
type faults struct {
	mu   sync.Mutex
	list []*Fault
	down bool
	seen map[string]int
}

// Inject sets a fault.
func (p *Project) Inject(f Fault) {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	p.faults.list = append(p.faults.list, &f)
}

// Heal ends all faults.
func (p *Project) Heal() {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	p.faults.list, p.faults.down = nil, false
}

// Down cuts every connection, to clients and hosts, or ends that.
func (p *Project) Down(down bool) {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	p.faults.down = down
}

// Requests counts what was asked, by operation or script; hosts are not counted.
func (p *Project) Requests() map[string]int {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	out := map[string]int{}
	maps.Copy(out, p.faults.seen)
	return out
}

// take finds the fault of a request.
func (f *faults) take(script, operation string) (*Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil {
		f.seen = map[string]int{}
	}
	if script != "hosts_contact" && script != "" {
		f.seen[operation]++
	}
	if f.down {
		return nil, true
	}
	for _, x := range f.list {
		if x.Times != 0 && (x.Path == "" || x.Path == script) && (x.Operation == "" || x.Operation == operation) && script != "hosts_contact" {
			x.Times--
			return x, false
		}
	}
	return nil, false
}

// befall answers a request, with what befalls it.
func (f *faults) befall(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
	script := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	operation := script
	if script == "submit_rpc_handler.php" || script == "job_file.php" {
		operation = peek(r)
	}
	fault, down := f.take(script, operation)
	if down || fault != nil && fault.Refuse {
		panic(http.ErrAbortHandler)
	}
	if fault == nil {
		next(w, r)
		return
	}
	if fault.Delay > 0 {
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		<-t.C
	}
	if fault.Status != 0 {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(fault.Status)
		_, _ = w.Write([]byte(fault.Body))
		return
	}
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	next(rec, r.WithContext(context.WithValue(r.Context(), faultKey{}, fault)))
	if fault.Cut {
		panic(http.ErrAbortHandler)
	}
	body := rec.body.Bytes()
	if fault.Replace != nil {
		body = fault.Replace(body)
		rec.header.Del("Content-Length")
	}
	maps.Copy(w.Header(), rec.header)
	w.WriteHeader(rec.status)
	if fault.Truncate > 0 && fault.Truncate < len(body) {
		_, _ = w.Write(body[:fault.Truncate])
		_ = http.NewResponseController(w).Flush() // so that the part goes out
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

type faultKey struct{}

// faultOf gives the fault that a request is under; one without effect for none.
func faultOf(r *http.Request) *Fault {
	if f, ok := r.Context().Value(faultKey{}).(*Fault); ok {
		return f
	}
	return &Fault{}
}

// peek finds the operation in a request's body, which it leaves to be read.
func peek(r *http.Request) string {
	var b bytes.Buffer
	_, _ = b.ReadFrom(r.Body)
	r.Body = body{bytes.NewReader(b.Bytes())}
	head := b.Bytes()
	if len(head) > 4096 {
		head = head[:4096]
	}
	text := strings.NewReplacer("%3C", "<", "%3E", ">", "%2F", "/").Replace(string(head))
	for op := range strings.FieldsSeq("ping create_batch estimate_batch submit_batch query_batches query_batch query_batch2 query_job query_completed_job " +
		"abort_batch abort_jobs retire_batch set_expire_time get_templates query_files upload_files") {
		if strings.Contains(text, "<"+op+">") {
			return op
		}
	}
	return "unknown"
}

type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(status int)      { r.status = status }
