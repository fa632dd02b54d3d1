package peers_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands between a gateway and the socket of another.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	cut   bool          // connections are ended, and refused
	delay time.Duration // of each piece, both ways
	most  int64         // bytes that come back on a connection before it is ended; 0 is no bound
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.set(func() { p.cut = true })
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "http://" + p.listener.Addr().String() + "/peer" }

// set changes what the proxy does; with cut all connections end.
func (p *proxy) set(do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	do()
	if p.cut || p.most > 0 {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		cut := p.cut
		p.mu.Unlock()
		if cut {
			_ = c.Close()
			continue
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = c.Close()
			continue
		}
		p.mu.Lock()
		p.conns[c], p.conns[out] = true, true
		most := p.most
		if p.cut { // meanwhile
			_, _ = c.Close(), out.Close()
		}
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(out, c, 0) })
		p.wg.Go(func() { p.copy(c, out, most) })
	}
}

func (p *proxy) copy(to, from net.Conn, most int64) {
	defer func() {
		_, _ = to.Close(), from.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
	}()
	var r io.Reader = from
	if most > 0 {
		r = io.LimitReader(from, most)
	}
	b := make([]byte, 32<<10)
	for {
		n, err := r.Read(b)
		p.mu.Lock()
		delay := p.delay
		p.mu.Unlock()
		if delay > 0 {
			<-time.After(delay)
		}
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}
