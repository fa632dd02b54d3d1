package peertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Fault is what happens to one request on its way. The zero value is nothing.
type Fault struct {
	Delay       time.Duration // before it arrives
	Back        time.Duration // before its answer does
	Refuse      bool          // there is no connection
	LoseRequest bool          // it never arrives, and nobody says so
	LoseAnswer  bool          // it is carried out, and nobody says so
	Twice       bool          // it arrives once more, later
	Truncate    bool          // its answer breaks off
}

// Network carries HTTP requests between gateways in one process, without sockets.
type Network struct {
	mu    sync.Mutex
	fault func(from, to string, r *http.Request) Fault
	hosts map[string]http.Handler
	cut   map[[2]string]bool
	tail  sync.WaitGroup // of what was doubled
}

// Faults says from now on what happens to each request; nil lets all through. It may be
// called at once from many goroutines.
func (n *Network) Faults(fault func(from, to string, r *http.Request) Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = fault
}

// Serve has requests to a host answered; nil lets the host be down.
func (n *Network) Serve(host string, h http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts == nil {
		n.hosts = map[string]http.Handler{}
	}
	n.hosts[host] = h
}

// Cut has requests from one host to another get lost, or no more so.
func (n *Network) Cut(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut == nil {
		n.cut = map[[2]string]bool{}
	}
	n.cut[[2]string{from, to}] = cut
}

// Partition cuts both ways.
func (n *Network) Partition(a, b string, cut bool) {
	n.Cut(a, b, cut)
	n.Cut(b, a, cut)
}

// Wait waits for requests that were doubled.
func (n *Network) Wait() { n.tail.Wait() }

// From gives what carries requests of a host.
func (n *Network) From(host string) http.RoundTripper { return &route{n, host} }

type route struct {
	n    *Network
	from string
}

func (r *route) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, n, to := req.Context(), r.n, req.URL.Host
	var body []byte
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		_ = req.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	var f Fault
	n.mu.Lock()
	fault := n.fault
	n.mu.Unlock()
	if fault != nil {
		f = fault(r.from, to, req)
	}
	n.mu.Lock()
	h, cut := n.hosts[to], n.cut[[2]string{r.from, to}]
	back := n.cut[[2]string{to, r.from}]
	n.mu.Unlock()
	if err := pause(ctx, f.Delay); err != nil {
		return nil, err
	}
	if f.Refuse || h == nil && !cut {
		return nil, errors.New("peertest: connection refused")
	}
	if f.LoseRequest || cut {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if f.Twice {
		n.tail.Go(func() {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			if pause(late, f.Delay+time.Second) == nil {
				_ = carry(late, h, req, body).Body.Close()
			}
		})
	}
	resp := carry(ctx, h, req, body)
	if f.LoseAnswer || back {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := pause(ctx, f.Back); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if f.Truncate {
		whole, _ := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), broken{}))
	}
	return resp, nil
}

// broken is the rest of a connection that broke.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func carry(ctx context.Context, h http.Handler, req *http.Request, body []byte) *http.Response {
	r := httptest.NewRequestWithContext(ctx, req.Method, req.URL.String(), bytes.NewReader(body))
	r.Header = req.Header.Clone()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
