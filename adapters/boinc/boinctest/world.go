package boinctest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// World is a whole project for tests: its server on a free port of this machine, and
// hosts that work for it.
type World struct {
	Dir  string
	URL  string
	Key  string // the authenticator of the account that submits
	Stop func() // ends everything

	mu     sync.Mutex
	p      *Project
	down   bool
	asked  map[string]int // of projects before
	starts map[string]int
	config Config
}

// Key is the authenticator of the account of a World.
const Key = "fedcba9876543210fedcba9876543210"

// Linux is the platform of the hosts of a World.
const Linux = "x86_64-pc-linux-gnu"

// Standard is the configuration of a project with the application "run" for jobs of
// any kind: a shell that runs job.sh, with no templates of its own.
func Standard() Config {
	return Config{
		Name:  "Test project",
		Users: []User{{ID: 1, Name: "gateway", Email: "gateway@example.org", Authenticator: Key, Submit: true, SubmitAll: true}},
		Apps: []App{{
			ID: 1, Name: "run", Versions: []AppVersion{{Number: 100, Platform: Linux}}, Program: Program{Kind: "shell"},
		}},
		Platforms: []Platform{{Name: Linux, Friendly: "Linux running on an AMD x86_64 or Intel EM64T CPU"}},
	}
}

// Start starts a project in a directory, with hosts. What runs on hosts is counted by
// job name.
func Start(dir string, config Config, hosts ...*Volunteer) (*World, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return nil, err
	}
	w := &World{Dir: dir, URL: "http://" + l.Addr().String() + "/gw/", Key: Key, asked: map[string]int{}, starts: map[string]int{}}
	config.URL = w.URL
	w.config = config
	if w.p, err = Open(filepath.Join(dir, "project"), config); err != nil {
		_ = l.Close()
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(w.serve), ReadHeaderTimeout: time.Minute}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) }) // until Stop
	slots := filepath.Join(dir, "slots")
	if err := os.MkdirAll(slots, 0o755); err != nil {
		cancel()
		return nil, err
	}
	for i, v := range hosts {
		if v.Host.ID == 0 {
			v.Host.ID = int64(i + 1)
		}
		if v.Host.Platform == "" {
			v.Host.Platform = Linux
		}
		if v.Dir == "" {
			v.Dir = slots
		}
		told := v.Started
		v.Started = func(result string) {
			w.mu.Lock()
			w.starts[result[:strings.LastIndexByte(result, '_')]]++
			w.mu.Unlock()
			if told != nil {
				told(result)
			}
		}
		wg.Go(func() { v.Run(ctx, w) })
	}
	tick := time.NewTicker(50 * time.Millisecond)
	wg.Go(func() {
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.Project().Tick()
			}
		}
	})
	var once sync.Once
	w.Stop = func() {
		once.Do(func() {
			cancel()
			_ = server.Close()
			wg.Wait()
			_ = w.Project().Close()
		})
	}
	return w, nil
}

// Project gives the project's present process.
func (w *World) Project() *Project {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.p
}

func (w *World) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	p, down := w.p, w.down
	w.mu.Unlock()
	if down {
		panic(http.ErrAbortHandler)
	}
	p.ServeHTTP(rw, r)
}

var errDown = errors.New("the project is down")

// Contact passes hosts on to the project.
func (w *World) Contact(c Contact) (Answer, error) {
	w.mu.Lock()
	p, down := w.p, w.down
	w.mu.Unlock()
	if down {
		return Answer{}, errDown
	}
	return p.Contact(c)
}

// Content gives hosts an input file.
func (w *World) Content(physical string) ([]byte, error) {
	w.mu.Lock()
	p, down := w.p, w.down
	w.mu.Unlock()
	if down {
		return nil, errDown
	}
	return p.Content(physical)
}

// Down takes the project away or brings it back; hosts go on with what they have.
func (w *World) Down(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// Restart ends the project's process and starts it again on what is on its disk.
func (w *World) Restart() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, n := range w.p.Requests() {
		w.asked[k] += n
	}
	old := w.p
	old.mu.Lock()
	config := old.config
	old.mu.Unlock()
	if err := old.Close(); err != nil {
		return err
	}
	p, err := Open(filepath.Join(w.Dir, "project"), config)
	if err != nil {
		return err
	}
	w.p = p
	return nil
}

// Requests counts what was asked of the project, by operation or script.
func (w *World) Requests() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.p.Requests()
	for k, n := range w.asked {
		all[k] += n
	}
	return all
}

// Total counts all of them.
func (w *World) Total() int64 {
	n := 0
	for _, k := range w.Requests() {
		n += k
	}
	return int64(n)
}

// Starts counts the starts of a job's program, over all hosts.
func (w *World) Starts(job string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.starts[job]
}

// Workunit gives the job of a name as the project holds it.
func (w *World) Workunit(name string) (Workunit, bool) {
	all := w.Project().Workunits()
	i := slices.IndexFunc(all, func(u Workunit) bool { return u.Name == name })
	if i < 0 {
		return Workunit{}, false
	}
	return all[i], true
}

// WriteKey writes the account's authenticator to a file that only its owner can read.
func (w *World) WriteKey() (string, error) {
	path := filepath.Join(w.Dir, "authenticator")
	return path, os.WriteFile(path, []byte(w.Key+"\n"), 0o600)
}
