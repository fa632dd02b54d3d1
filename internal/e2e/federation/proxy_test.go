package federation

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy is the way from one gateway to another's peer endpoint. What is sent takes its
// time, and no longer arrives while the way is cut: connections then hang, as those whose
// packets are dropped do, and are not refused.
type proxy struct {
	l    net.Listener
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	to   string
	wg   sync.WaitGroup

	mu    sync.Mutex
	delay time.Duration
	rate  int           // bytes a second in each direction; 0 is no bound
	open  chan struct{} // closed unless the way is cut
	ended chan struct{}
	conns map[net.Conn]struct{}
	bytes [2]int64 // there and back
	made  int      // connections
}

// newProxy passes on what comes to l.
func newProxy(l net.Listener, to string, dial func(context.Context, string, string) (net.Conn, error)) *proxy {
	p := &proxy{l: l, to: to, dial: dial, open: make(chan struct{}), ended: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(p.open)
	p.wg.Go(p.accept)
	return p
}

func (p *proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

// way gives how things stand.
func (p *proxy) way() (delay time.Duration, rate int, open <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay, p.rate, p.open
}

// set changes delay and rate of what is sent from now on.
func (p *proxy) set(delay time.Duration, rate int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay, p.rate = delay, rate
}

// cut has nothing pass until heal.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// heal ends a cut.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
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

// passed tells what passed so far.
func (p *proxy) passed() (there, back int64, connections int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes[0], p.bytes[1], p.made
}

func (p *proxy) close() {
	_ = p.l.Close()
	close(p.ended)
	p.heal()
	p.reset()
	p.wg.Wait()
}

func (p *proxy) track(c net.Conn) (done func()) {
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	return func() {
		_ = c.Close()
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}
}

func (p *proxy) serve(in net.Conn) {
	defer p.track(in)()
	if _, _, open := p.way(); !p.wait(open) {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	out, err := p.dial(ctx, "tcp", p.to)
	if err != nil {
		return
	}
	defer p.track(out)()
	p.mu.Lock()
	p.made++
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pass(in, out, 0) })
	both.Go(func() { p.pass(out, in, 1) })
	both.Wait()
}

// wait waits for an end of a cut, and says whether the proxy is still there.
func (p *proxy) wait(open <-chan struct{}) bool {
	select {
	case <-open:
		return true
	case <-p.ended:
		return false
	}
}

type piece struct {
	b   []byte
	due time.Time
}

// pass passes on in one direction, until either side is closed.
func (p *proxy) pass(from, to net.Conn, direction int) {
	pieces := make(chan piece, 64)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(pieces)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				delay, _, _ := p.way()
				pieces <- piece{b[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	})
	for x := range pieces {
		_, rate, open := p.way()
		wait := time.Until(x.due)
		if rate > 0 {
			wait = max(wait, 0) + time.Duration(len(x.b))*time.Second/time.Duration(rate)
		}
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-p.ended:
				t.Stop()
			}
			_, _, open = p.way()
		}
		if !p.wait(open) {
			break
		}
		if _, err := to.Write(x.b); err != nil {
			break
		}
		p.mu.Lock()
		p.bytes[direction] += int64(len(x.b))
		p.mu.Unlock()
	}
	// The other direction may have more to say, but only one that is closed for writing
	// alone; HTTP has no use for that.
	_ = to.Close()
	_ = from.Close()
	for range pieces {
	}
	reading.Wait()
}

// TestProxy: what is sent arrives, late, slowly, not while the way is cut, and not after a
// reset.
func TestProxy(t *testing.T) {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	server := listen()
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	l := listen()
	p := newProxy(l, server.Addr().String(), new(net.Dialer).DialContext)
	defer p.close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echo := func(n int, within time.Duration) (time.Duration, error) {
		t.Helper()
		begin := time.Now()
		if err := c.SetDeadline(begin.Add(within)); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, n))
			sent <- err
		}()
		_, err := io.ReadFull(c, make([]byte, n))
		if err == nil {
			err = <-sent
		}
		return time.Since(begin), err
	}
	if _, err := echo(100_000, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	p.set(50*time.Millisecond, 0)
	if d, err := echo(10, 10*time.Second); err != nil || d < 100*time.Millisecond {
		t.Errorf("there and back took %s with 50 ms each way: %v", d, err)
	}
	p.set(0, 100_000)
	if d, err := echo(20_000, 10*time.Second); err != nil || d < 200*time.Millisecond {
		t.Errorf("20 kB took %s at 100 kB a second: %v", d, err)
	}
	p.set(0, 0)
	p.cut()
	if _, err := echo(10, 300*time.Millisecond); err == nil {
		t.Error("something passed while the way was cut")
	}
	p.heal()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 10)); err != nil { // of the cut
		t.Errorf("what waited for the end of the cut: %v", err)
	}
	p.reset()
	if _, err := echo(10, 10*time.Second); err == nil {
		t.Error("the connection outlived a reset")
	}
	if there, back, n := p.passed(); there < 120_000 || back < 120_000 || n != 1 {
		t.Errorf("%d bytes there, %d back, over %d connections", there, back, n)
	}
}
