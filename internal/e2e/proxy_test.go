package e2e

import (
	"net"
	"sync"
	"testing"
)

// proxy passes connections on to an address until it is cut: what is sent then waits, as
// what a network drops does, and nobody is told.
type proxy struct {
	l  net.Listener
	to string
	wg sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{} // closed unless it is cut
	conns map[net.Conn]bool
	ended chan struct{}
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, to: to, open: make(chan struct{}), conns: map[net.Conn]bool{}, ended: make(chan struct{})}
	close(p.open)
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	return p
}

func (p *proxy) close() {
	close(p.ended)
	_ = p.l.Close()
	p.reset()
	p.wg.Wait()
}

// cut has nothing pass until heal.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

// heal ends a cut; connections of before are broken, as those of a firewall that was started
// anew are.
func (p *proxy) heal() {
	p.reset()
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.open)
}

// reset breaks all connections.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	}
}

// wait waits for the end of a cut; false is the end of the proxy.
func (p *proxy) wait() bool {
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	select {
	case <-open:
		return true
	case <-p.ended:
		return false
	}
}

func (p *proxy) keep(c net.Conn) (drop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	select {
	case <-p.ended: // reset does not come again
		_ = c.Close()
	default:
	}
	return func() {
		_ = c.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	}
}

func (p *proxy) serve(in net.Conn) {
	defer p.keep(in)()
	if !p.wait() {
		return
	}
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer p.keep(out)()
	var both sync.WaitGroup
	pass := func(from, to net.Conn) {
		defer from.Close()
		defer to.Close()
		b := make([]byte, 16<<10)
		for {
			n, err := from.Read(b)
			if n > 0 && p.wait() {
				_, werr := to.Write(b[:n])
				if werr != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	both.Go(func() { pass(in, out) })
	both.Go(func() { pass(out, in) })
	both.Wait()
}
