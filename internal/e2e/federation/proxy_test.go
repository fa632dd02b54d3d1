package federation

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands before the peer endpoint of one gateway: all others reach it through the
// proxy, which knows by their addresses which way each comes.
type proxy struct {
	l    net.Listener
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	to   string
	ways map[string]*way // by where connections come from
	wg   sync.WaitGroup
}

// way is one between two gateways. What is sent takes its time, and no longer arrives
// while the way is cut: connections then hang, as those whose packets are dropped do, and
// are not refused.
type way struct {
	mu    sync.Mutex
	delay time.Duration
	rate  int           // bytes a second in each direction; 0 is no bound
	open  chan struct{} // closed unless the way is cut
	ended chan struct{}
	conns map[net.Conn]struct{}
	bytes [2]int64 // there and back
	made  int      // connections
}

func newWay() *way {
	w := &way{open: make(chan struct{}), ended: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(w.open)
	return w
}

// newProxy passes on what comes to l from the addresses of ways, and nothing else.
func newProxy(l net.Listener, to string, dial func(context.Context, string, string) (net.Conn, error), ways map[string]*way) *proxy {
	p := &proxy{l: l, to: to, dial: dial, ways: ways}
	p.wg.Go(p.accept)
	return p
}

func (p *proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		if w := p.ways[host]; w != nil {
			p.wg.Go(func() { p.serve(w, c) })
		} else {
			_ = c.Close()
		}
	}
}

func (p *proxy) close() {
	_ = p.l.Close()
	for _, w := range p.ways {
		close(w.ended)
		w.heal()
		w.reset()
	}
	p.wg.Wait()
}

// now gives how things stand.
func (w *way) now() (delay time.Duration, rate int, open <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.delay, w.rate, w.open
}

// set changes delay and rate of what is sent from now on.
func (w *way) set(delay time.Duration, rate int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay, w.rate = delay, rate
}

// cut has nothing pass until heal.
func (w *way) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
		w.open = make(chan struct{})
	default:
	}
}

// heal ends a cut.
func (w *way) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
	default:
		close(w.open)
	}
}

// reset breaks all connections.
func (w *way) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	}
}

// passed tells what passed so far.
func (w *way) passed() (there, back int64, connections int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes[0], w.bytes[1], w.made
}

// afresh counts from nothing on.
func (w *way) afresh() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes, w.made = [2]int64{}, 0
}

func (w *way) track(c net.Conn) (done func()) {
	w.mu.Lock()
	w.conns[c] = struct{}{}
	w.mu.Unlock()
	return func() {
		_ = c.Close()
		w.mu.Lock()
		delete(w.conns, c)
		w.mu.Unlock()
	}
}

func (p *proxy) serve(w *way, in net.Conn) {
	defer w.track(in)()
	if _, _, open := w.now(); !w.wait(open) {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	out, err := p.dial(ctx, "tcp", p.to)
	if err != nil {
		return
	}
	defer w.track(out)()
	w.mu.Lock()
	w.made++
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { w.pass(in, out, 0) })
	both.Go(func() { w.pass(out, in, 1) })
	both.Wait()
}

// wait waits for an end of a cut, and says whether the proxy is still there.
func (w *way) wait(open <-chan struct{}) bool {
	select {
	case <-open:
		return true
	case <-w.ended:
		return false
	}
}

type piece struct {
	b   []byte
	due time.Time
}

// pass passes on in one direction, until either side is closed.
func (w *way) pass(from, to net.Conn, direction int) {
	pieces := make(chan piece, 64)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(pieces)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				delay, _, _ := w.now()
				pieces <- piece{b[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	})
	for x := range pieces {
		_, rate, open := w.now()
		wait := time.Until(x.due)
		if rate > 0 {
			wait = max(wait, 0) + time.Duration(len(x.b))*time.Second/time.Duration(rate)
		}
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-w.ended:
				t.Stop()
			}
			_, _, open = w.now()
		}
		if !w.wait(open) {
			break
		}
		if _, err := to.Write(x.b); err != nil {
			break
		}
		w.mu.Lock()
		w.bytes[direction] += int64(len(x.b))
		w.mu.Unlock()
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
	w := newWay()
	p := newProxy(l, server.Addr().String(), new(net.Dialer).DialContext, map[string]*way{"127.0.0.1": w})
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
	w.set(50*time.Millisecond, 0)
	if d, err := echo(10, 10*time.Second); err != nil || d < 100*time.Millisecond {
		t.Errorf("there and back took %s with 50 ms each way: %v", d, err)
	}
	w.set(0, 100_000)
	if d, err := echo(20_000, 10*time.Second); err != nil || d < 200*time.Millisecond {
		t.Errorf("20 kB took %s at 100 kB a second: %v", d, err)
	}
	w.set(0, 0)
	w.cut()
	if _, err := echo(10, 300*time.Millisecond); err == nil {
		t.Error("something passed while the way was cut")
	}
	w.heal()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 10)); err != nil { // of the cut
		t.Errorf("what waited for the end of the cut: %v", err)
	}
	w.reset()
	if _, err := echo(10, 10*time.Second); err == nil {
		t.Error("the connection outlived a reset")
	}
	if there, back, n := w.passed(); there < 120_000 || back < 120_000 || n != 1 {
		t.Errorf("%d bytes there, %d back, over %d connections", there, back, n)
	}
}
