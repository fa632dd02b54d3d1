package shell

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// What gateway and agent say to each other through SSH: a greeting, which tells the
// agent's words from what a login shell may print before, then frames, each four
// bytes of length and that many of JSON.

const greeting = "\nportolan shell host 1\n"

// maxNoise bounds what may come before the greeting.
const maxNoise = 64 << 10

// maxFrame bounds a frame: one job with all that a program can be given.
const maxFrame = maxSpec + 1<<20

// call is what the gateway wants of a host; answer is what comes of it. An answer
// with ID 0 is news that nobody asked for.
type call struct {
	ID      uint64          `json:"id"`
	Do      string          `json:"do"`
	Setup   *hostSetup      `json:"setup,omitzero"`
	Jobs    []hostJob       `json:"jobs,omitzero"`
	Tags    []adapters.Tag  `json:"tags,omitzero"`
	Stream  adapters.Stream `json:"stream,omitzero"`
	Offset  int64           `json:"offset,omitzero"`
	Until   []time.Time     `json:"until,omitzero"`   // of hostExtend, one for each of Tags
	Partial bool            `json:"partial,omitzero"` // a last line without its end counts
}

const (
	hostOpen    = "open"
	hostCheck   = "check"
	hostPlace   = "place"
	hostFind    = "find"
	hostStatus  = "status"
	hostCancel  = "cancel"
	hostSuspend = "suspend"
	hostResume  = "resume"
	hostRead    = "read"
	hostExtent  = "extent"
	hostForget  = "forget"
	hostExtend  = "extend"
	hostFree    = "free"
	hostPing    = "ping"
)

type answer struct {
	ID       uint64           `json:"id,omitzero"`
	Error    *wireError       `json:"error,omitzero"` // of the whole
	Errors   []*wireError     `json:"errors,omitzero"`
	Facts    *facts           `json:"facts,omitzero"`
	Tags     []adapters.Tag   `json:"tags,omitzero"`
	Evidence []hostedEvidence `json:"evidence,omitzero"`
	Data     []byte           `json:"data,omitzero"`
	Length   int64            `json:"length,omitzero"`
}

// hostSetup is what a host's agent opens its adapter with.
type hostSetup struct {
	Dir           string              `json:"dir"`
	Slots         int                 `json:"slots,omitzero"`
	Grace         time.Duration       `json:"grace"`
	Umask         int                 `json:"umask"`
	HostNames     []string            `json:"hostNames,omitzero"`
	Path          string              `json:"path"`
	Track         string              `json:"track,omitzero"`
	EnforceMemory bool                `json:"enforceMemory,omitzero"`
	CPUShares     bool                `json:"cpuShares,omitzero"`
	NoSync        bool                `json:"noSync,omitzero"`
	Sandbox       Sandbox             `json:"sandbox,omitzero"`
	Launchers     map[string][]string `json:"launchers,omitzero"`
	Environment   map[string]string   `json:"environment,omitzero"`
	Silence       time.Duration       `json:"silence"` // after which the gateway is taken for gone
}

// hostJob is a job on its way to a host. What is run goes as it is, since XML
// can't carry every argument; what is required goes as XML, since JSON can't carry
// every number.
type hostJob struct {
	Tag       adapters.Tag `json:"tag"`
	Owner     string       `json:"owner,omitzero"`
	Account   string       `json:"account,omitzero"`
	Name      *string      `json:"name,omitzero"`
	Projects  []string     `json:"projects,omitzero"`
	Program   jsdl.Program `json:"program"`
	Resources []byte       `json:"resources,omitzero"`
	Part      *part        `json:"part,omitzero"`
	NotAfter  time.Time    `json:"notAfter,omitzero"` // the end of its lease
}

func hostJobOf(j *adapters.Job) hostJob {
	h := hostJob{Tag: j.Tag, Owner: j.Owner, Account: j.Account, Program: j.Definition.Program(), NotAfter: j.NotAfter.UTC().Round(0)}
	if id := j.Definition.Description.Identification; id != nil {
		h.Name, h.Projects = id.JobName, id.Projects
	}
	if r := j.Definition.Description.Resources; r != nil {
		h.Resources = (&jsdl.JobDefinition{Description: jsdl.JobDescription{Resources: r}}).Marshal()
	}
	return h
}

// wanted gives the job back.
func (h *hostJob) wanted() (wanted, error) {
	w := wanted{definition: &jsdl.JobDefinition{}, program: h.Program, tag: h.Tag, account: h.Account, part: h.Part, notAfter: h.NotAfter}
	if len(h.Resources) > 0 {
		d, problems := jsdl.Parse(h.Resources, jsdl.Options{Lenient: true})
		if bad := problems.Invalid(); len(bad) > 0 || d == nil {
			return w, fail.Errorf("shell.Check", fail.Invalid, string(h.Tag), "Resources: %s", bad[0].Sentence())
		}
		w.definition = d
	}
	if h.Name != nil || len(h.Projects) > 0 {
		w.definition.Description.Identification = &jsdl.JobIdentification{JobName: h.Name, Projects: h.Projects}
	}
	return w, nil
}

// hostedEvidence is evidence with its error in words.
type hostedEvidence struct {
	adapters.Evidence
	Err *wireError `json:"Err,omitzero"`
}

func hosted(e adapters.Evidence) hostedEvidence {
	h := hostedEvidence{Evidence: e, Err: wireErrorOf(e.Err)}
	h.Evidence.Err = nil
	return h
}

func (h hostedEvidence) evidence() adapters.Evidence {
	e := h.Evidence
	e.Err = h.Err.err("shell.Status")
	return e
}

// wireError is an error that crosses.
type wireError struct {
	Kind     fail.Kind `json:"kind"`
	Sentence string    `json:"sentence"`
}

func wireErrorOf(err error) *wireError {
	if err == nil {
		return nil
	}
	return &wireError{Kind: fail.KindOf(err), Sentence: fail.Sentence(err)}
}

func (w *wireError) err(op string) error {
	if w == nil {
		return nil
	}
	return fail.Errorf(op, w.Kind, "", "%s", w.Sentence)
}

// frames reads and writes frames. Writing may be done by many at once.
type frames struct {
	in  *bufio.Reader
	mu  sync.Mutex
	out io.Writer
}

// greeted reads up to the greeting, and gives what came before if it does not come.
func (f *frames) greeted() error {
	var noise []byte
	for len(noise) < maxNoise {
		b, err := f.in.ReadByte()
		if err != nil {
			return fmt.Errorf("it says %q and no more: %w", clip(string(noise)), err)
		}
		noise = append(noise, b)
		if n := len(noise) - len(greeting); n >= 0 && string(noise[n:]) == greeting {
			return nil
		}
	}
	return fmt.Errorf("it says %q", clip(string(noise)))
}

func (f *frames) send(message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(data) > maxFrame {
		return fmt.Errorf("a message of %d bytes is too long", len(data))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data)))
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err = f.out.Write(append(frame, data...))
	return err
}

func (f *frames) receive(message any) error {
	var size [4]byte
	if _, err := io.ReadFull(f.in, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return fmt.Errorf("a message of %d bytes is too long", n)
	}
	// Read as it comes: a length that somebody made up costs no memory.
	data, err := io.ReadAll(io.LimitReader(f.in, int64(n)))
	if err != nil {
		return err
	}
	if len(data) < int(n) {
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(data, message)
}

// facts are what a gateway knows of a host: what its site is there.
type facts struct {
	OS        string            `json:"os"`
	OSVersion string            `json:"osVersion"`
	Arch      string            `json:"arch"`
	CPUs      int               `json:"cpus"`
	Speed     float64           `json:"speed,omitzero"`
	Memory    int64             `json:"memory"`
	Virtual   int64             `json:"virtual"`
	Names     []string          `json:"names"`
	ArgMax    int64             `json:"argMax"`
	User      string            `json:"user"`
	Group     string            `json:"group"`
	Home      string            `json:"home"`
	UID       int               `json:"uid"`
	GID       int               `json:"gid"`
	Track     track             `json:"track"`
	Accounts  bool              `json:"accounts,omitzero"`
	Lacking   []string          `json:"lacking,omitzero"`
	Launchers map[string]string `json:"launchers,omitzero"`
	Slots     int               `json:"slots"`
	Disk      int64             `json:"disk"`
	Free      int64             `json:"free"` // bytes of memory that are free
	Remarks   []string          `json:"remarks,omitzero"`
	Start     string            `json:"start,omitzero"` // of the machine
	Lease     bool              `json:"lease,omitzero"` // it keeps leases
}

func (a *Adapter) facts() *facts {
	f := &facts{
		OS: a.os, OSVersion: a.osVersion, Arch: a.arch, CPUs: a.cpus, Speed: a.speed, Memory: a.memory, Virtual: a.virtual, Names: a.names,
		ArgMax: a.argMax, User: a.account.user, Group: a.account.group, Home: a.account.home, UID: a.account.uid, GID: a.account.gid,
		Track: a.track, Accounts: a.confinement.accounts, Lacking: a.lacking, Launchers: a.launchers, Slots: a.options.Slots,
		Free: meminfo()["MemAvailable"], Remarks: a.remarks(), Start: a.boot, Lease: true,
	}
	f.Disk, _ = diskFree(a.jobs)
	return f
}

// site makes plans for the host from afar: they say what a job needs and what
// stands against it, but for what only the host can see.
func (f *facts) site(o *Options) *site {
	here := *o
	here.Slots = f.Slots
	return &site{
		machine: machine{
			os: f.OS, osVersion: f.OSVersion, arch: f.Arch, cpus: f.CPUs, speed: f.Speed, memory: f.Memory, virtual: f.Virtual, names: f.Names,
			argMax: f.ArgMax, boot: f.Start, account: account{user: f.User, group: f.Group, home: f.Home, uid: f.UID, gid: f.GID},
		},
		options: &here, track: f.Track, confinement: confinement{accounts: f.Accounts}, lacking: f.Lacking, launchers: f.Launchers,
		jobs: "/", afar: true, disk: f.Disk,
	}
}
