package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// client sends prepared bytes over one kept connection and reads as little of the
// answers as shows that they are right: it shares the machine with the gateway.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	body []byte
}

func dial(address string) (*client, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: c, in: bufio.NewReaderSize(c, 16<<10)}, nil
}

var (
	okStatus    = []byte("HTTP/1.1 200 ")
	faultStatus = []byte("HTTP/1.1 500 ")
	length      = []byte("content-length:")
	made        = []byte("CreateActivityResponse")
)

// do sends a request and wants an answer with 200 that holds want.
func (c *client) do(request, want []byte) error { return c.ask(request, okStatus, want) }

// ask is do with another status.
func (c *client) ask(request, status, want []byte) error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(line, status)
	got := string(bytes.TrimSpace(line[:min(len(line), 40)]))
	n := -1
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
		if len(line) > len(length) && bytes.EqualFold(line[:len(length)], length) {
			if n, err = strconv.Atoi(string(bytes.TrimSpace(line[len(length):]))); err != nil {
				return err
			}
		}
	}
	if n < 0 {
		return errors.New("the answer has no Content-Length")
	}
	if cap(c.body) < n {
		c.body = make([]byte, n)
	}
	if _, err := io.ReadFull(c.in, c.body[:n]); err != nil {
		return err
	}
	if !ok || !bytes.Contains(c.body[:n], want) {
		return fmt.Errorf("the answer is %s: %.300s", got, c.body[:n])
	}
	return nil
}

// rate is how often something was done in a time, and what processor time that
// took of this process: clients, gateway and store together. Where others use the
// machine too, the latter says more than the clock.
type rate struct {
	done      int64
	took      time.Duration
	processor time.Duration
}

func (r rate) perSecond() float64 { return float64(r.done) / r.took.Seconds() }

func (r rate) each() float64 { return float64(r.processor.Nanoseconds()) / 1000 / float64(r.done) }

func processor() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// during runs deeds in n goroutines for a time, each until the first that ends
// after it; prepare gives each goroutine its deed.
func during(d time.Duration, n int, prepare func(i int) (deed func() error, end func(), err error)) (rate, error) {
	var done atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, n)
	ready, begin := new(sync.WaitGroup), make(chan struct{})
	ready.Add(n)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for i := range n {
		wg.Go(func() {
			deed, end, err := prepare(i)
			ready.Done()
			if err != nil {
				errs[i] = err
				return
			}
			defer end()
			<-begin
			for ctx.Err() == nil {
				if errs[i] = deed(); errs[i] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	ready.Wait()
	start, used := time.Now(), processor()
	close(begin)
	timer := time.AfterFunc(d, stop)
	defer timer.Stop()
	wg.Wait()
	return rate{done.Load(), time.Since(start), processor() - used}, errors.Join(errs...)
}
