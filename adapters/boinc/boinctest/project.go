package boinctest

import (
	"crypto/md5" //nolint:gosec // the protocol names files by it
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Config is a project as its staff set it up. The zero value of a field is the stock
// setting.
type Config struct {
	Name      string // "BOINC project"
	URL       string // the master URL, as clients are told; ends in "/"
	Path      string // where the project lives on its machine, as messages tell it
	Users     []User
	Apps      []App
	Platforms []Platform // those of the applications' versions when nil

	UploadMax, PostMax int64 // PHP's upload_max_filesize and post_max_size; 64 and 128 MB
	FileSchema         bool  // the extra table of files and batches is there
	DisplayErrors      bool  // PHP's messages are shown in replies
	FeederSlots        int   // of the feeder's job cache; 100
	PurgeStale         bool  // the feeder lets go of instances that nobody takes
	DeleteUploads      bool  // the file_deleter removes outputs as soon as they are assimilated
	WebStopped         bool
	SchedStopped       bool
	Manual             bool // the daemons run only when Transition is called
	OneHostOnce        bool // no two instances of a job go to one host
	// Same decides whether two results agree; nil compares their files byte by byte.
	Same func(app string, a, b map[string][]byte) bool `json:"-"`
	// Fetch gets a URL for semilocal files; nil has no network.
	Fetch func(url string) ([]byte, error) `json:"-"`
	// Sandbox has the names of files in users' web areas.
	Sandbox []string
	// Now and Random are the clock and the random part of output names.
	Now    func() time.Time          `json:"-"`
	Random func(result string) int64 `json:"-"`
}

// Platform is a kind of host.
type Platform struct {
	Name     string
	Friendly string
}

// Project is the server. It is an http.Handler of everything below its URL's path.
type Project struct {
	config Config
	dir    string
	faults faults

	mu      sync.Mutex
	batches map[int64]*Batch
	wus     map[int64]*Workunit
	wuNames map[string]*Workunit
	results map[int64]*Result
	ofWU    map[int64][]*Result
	ofBatch map[int64][]*Workunit
	byName  map[string]*Result
	files   map[string]*JobFile
	next    map[string]int64
	cache   []int64 // the feeder's
	unsent  []int64 // ids of results that were made unsent, in order
	journal *os.File
	dirty   []any
	wake    chan struct{} // closed when there may be work
	tasks   map[int64]map[string]bool
}

// Open gives the project that lives in dir, and makes it when there is none.
func Open(dir string, config Config) (*Project, error) {
	if config.Name == "" {
		config.Name = "BOINC project"
	}
	if config.Path == "" {
		config.Path = "/srv/boinc/projects/gw"
	}
	if config.UploadMax == 0 {
		config.UploadMax = 64 << 20
	}
	if config.PostMax == 0 {
		config.PostMax = 128 << 20
	}
	if config.FeederSlots == 0 {
		config.FeederSlots = 100
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Random == nil {
		config.Random = func(string) int64 { return int64(rand.Uint32() >> 1) } //nolint:gosec // a file name
	}
	if config.Platforms == nil {
		for _, a := range config.Apps {
			for _, v := range a.Versions {
				p := Platform{Name: v.Platform, Friendly: v.Platform}
				if !slices.Contains(config.Platforms, p) {
					config.Platforms = append(config.Platforms, p)
				}
			}
		}
	}
	p := &Project{
		config: config, dir: dir, batches: map[int64]*Batch{}, wus: map[int64]*Workunit{}, wuNames: map[string]*Workunit{},
		results: map[int64]*Result{}, ofWU: map[int64][]*Result{}, ofBatch: map[int64][]*Workunit{}, byName: map[string]*Result{},
		files: map[string]*JobFile{}, next: map[string]int64{}, wake: make(chan struct{}), tasks: map[int64]map[string]bool{},
	}
	for _, sub := range []string{"download", "upload", "results"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	return p, nil
}

// Close ends the project's process.
func (p *Project) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.journal.Close()
}

// Change changes the configuration, as the staff would.
func (p *Project) Change(change func(*Config)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.config)
	p.stir()
}

// SetNext sets the id that the next row of a table gets: "batch", "workunit", "result".
func (p *Project) SetNext(table string, id int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[table] = id - 1
}

func (p *Project) id(table string) int64 {
	p.next[table]++
	return p.next[table]
}

func (p *Project) now() int64 { return p.config.Now().Unix() }

// app gives the application of a name, or nil.
func (p *Project) app(name string) *App {
	for i := range p.config.Apps {
		if p.config.Apps[i].Name == name {
			return &p.config.Apps[i]
		}
	}
	return nil
}

func (p *Project) appOf(id int64) *App {
	for i := range p.config.Apps {
		if p.config.Apps[i].ID == id {
			return &p.config.Apps[i]
		}
	}
	return &App{}
}

func (p *Project) user(ok func(*User) bool) *User {
	for i := range p.config.Users {
		if ok(&p.config.Users[i]) {
			return &p.config.Users[i]
		}
	}
	return nil
}

// stir wakes who waits for work.
func (p *Project) stir() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// fanout gives the directory below download or upload in which a file lies.
func fanout(name string) string {
	n, _ := strconv.ParseUint(hexMD5(name)[1:8], 16, 64)
	return fmt.Sprintf("%x", n%1024)
}

func hexMD5(s string) string {
	sum := md5.Sum([]byte(s)) //nolint:gosec // likewise
	return hex.EncodeToString(sum[:])
}

// shown is a path as messages tell it.
func (p *Project) shown(hierarchy, name string) string {
	return p.config.Path + "/" + hierarchy + "/" + fanout(name) + "/" + name
}

func (p *Project) file(hierarchy, name string) string {
	return filepath.Join(p.dir, hierarchy, fanout(name), name)
}

func (p *Project) write(hierarchy, name string, content []byte) error {
	path := p.file(hierarchy, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (p *Project) read(hierarchy, name string) ([]byte, error) {
	return os.ReadFile(p.file(hierarchy, name))
}

// Rows for tests: copies of what the database holds.

// Batches lists the batches by id.
func (p *Project) Batches() []Batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	return sorted(p.batches, func(b *Batch) int64 { return b.ID })
}

// Workunits lists the jobs by id.
func (p *Project) Workunits() []Workunit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return sorted(p.wus, func(w *Workunit) int64 { return w.ID })
}

// Results lists the instances by id.
func (p *Project) Results() []Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	return sorted(p.results, func(r *Result) int64 { return r.ID })
}

// Files lists the files that were uploaded for jobs.
func (p *Project) Files() []JobFile {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []JobFile
	for _, f := range p.files {
		list = append(list, *f)
	}
	return list
}

// Content gives a stored input file.
func (p *Project) Content(physical string) ([]byte, error) {
	return p.read("download", physical)
}

func sorted[T any](rows map[int64]*T, id func(*T) int64) []T {
	list := make([]T, 0, len(rows))
	for _, r := range rows {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b T) int { return int(id(&a) - id(&b)) })
	return list
}

// fetch gets a URL as the server does for semilocal files.
func (p *Project) fetch(url string) ([]byte, error) {
	if p.config.Fetch != nil {
		return p.config.Fetch(url)
	}
	return nil, fmt.Errorf("%s can't be reached", url)
}

// HTTPFetch is a Fetch over the network.
func HTTPFetch(url string) ([]byte, error) {
	res, err := http.Get(url) //nolint:noctx // the double does as it is told
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return io.ReadAll(io.LimitReader(res.Body, 64<<20))
}
