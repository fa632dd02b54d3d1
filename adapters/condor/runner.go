package condor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/internal/program"
)

// RunWord is the program's first argument where it runs a job: its main calls RunMain
// with what follows it.
const RunWord = "condor-run"

// sandboxWord stands for the directory where the job's own was transferred to.
const sandboxWord = "sandbox"

// RunMain is the runner: the process that HTCondor starts on a node. It runs the
// program of one job, keeps its limits and records its end. It must be called before
// the program starts anything else, and gives the exit status of the process.
func RunMain(args []string) int {
	runtime.LockOSThread() // the parent of a program is a thread: for tracing
	r, err := newRunner(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "portolan: "+err.Error())
		return program.StatusRefused
	}
	return r.run()
}

type runner struct {
	home string // where the job lives
	dir  jobDir // where its records are
	spec *spec
	host string
	// before is the end of an earlier run, which stands.
	before *ended
	// broken says why the job is not run.
	broken  string
	began   time.Time
	sandbox bool
}

// newRunner finds the job and claims it. The arguments are the directory of jobs, the
// submission and the tag; or "sandbox", where the job's directory is the current one.
func newRunner(args []string) (*runner, error) {
	r := &runner{began: time.Now()}
	r.host, _ = os.Hostname()
	var batch string
	switch {
	case len(args) == 2 && args[0] == sandboxWord:
		wd, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		r.home, r.dir, batch, r.sandbox = wd, jobDir(wd), args[1], true
	case len(args) == 3 && adapters.Tag(args[2]).Validate() == nil:
		r.home = filepath.Join(args[0], args[2])
		r.dir, batch = jobDir(r.home), args[1]
	default:
		return nil, errors.New("the arguments are a directory of jobs, a submission and a tag")
	}
	s, err := r.dir.spec()
	if err != nil {
		return nil, fmt.Errorf("the job can't be read: the gateway has withdrawn or forgotten it, or %s is not shared with this node: %w", r.home, err)
	}
	if s.Batch != batch {
		return nil, fmt.Errorf("job %s belongs to another submission", s.Tag)
	}
	r.spec = s
	return r, r.claim()
}

// claim begins the job, once and for all: only one that may be run again is.
func (r *runner) claim() error {
	data, err := json.Marshal(begun{Version: version, Host: r.host, Started: r.began})
	if err != nil {
		return err
	}
	err = create(r.dir.path(nameStart), data)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	b, err := r.dir.begun()
	if err != nil || b == nil || b.Withdrawn {
		return fmt.Errorf("job %s was withdrawn and is not to be run: %w", r.spec.Tag, err)
	}
	// A manager that lost the end of a job starts it again; what is done is done.
	if r.before, err = r.dir.ended(); err != nil || r.before != nil {
		return err
	}
	if !r.spec.Rerunnable {
		r.broken = fmt.Sprintf("the job was begun on %s and lost there; it is not started again, as Rerunnable does not say that it may be", b.Host)
	}
	return nil
}

func (r *runner) run() int {
	if r.before != nil {
		return r.before.ExitAs()
	}
	if r.broken != "" {
		return r.record(program.End{Reason: r.broken})
	}
	p := &r.spec.Program
	p.Environment = withManagers(p.Environment, os.Environ())
	end := p.Run(r.home)
	if r.sandbox {
		// What is to be transferred back must be there, or the job would be held for it.
		for _, name := range []string{program.NameStdout, program.NameStderr} {
			if f, err := os.OpenFile(filepath.Join(r.home, name), os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
				_ = f.Close()
			}
		}
	}
	return r.record(end)
}

// record writes the end, of which the first stands, and gives the exit status that the
// manager is to see.
func (r *runner) record(end program.End) int {
	end.Reason = clip(end.Reason)
	data, err := json.Marshal(ended{Version: version, Host: r.host, Started: r.began, Ended: time.Now(), End: end})
	if err == nil {
		err = create(r.dir.path(nameEnd), data)
	}
	if errors.Is(err, fs.ErrExist) {
		if first, err := r.dir.ended(); err == nil && first != nil {
			return first.ExitAs()
		}
	}
	if err != nil {
		// The manager's own record is then all that is left.
		fmt.Fprintf(os.Stderr, "portolan: the end of job %s could not be recorded: %v\n", r.spec.Tag, err)
	}
	return end.ExitAs()
}

// withManagers adds the variables by which HTCondor tells a job about itself and its
// devices, unless the job sets them itself.
func withManagers(env, have []string) []string {
	own := map[string]bool{}
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		own[name] = true
	}
	out := slices.Clone(env)
	for _, v := range have {
		name, _, _ := strings.Cut(v, "=")
		if managers(name) && !own[name] {
			own[name] = true
			out = append(out, v)
		}
	}
	return out
}

func managers(name string) bool {
	switch name {
	case "BATCH_SYSTEM", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
		"OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "GOMAXPROCS":
		return true
	}
	return strings.HasPrefix(name, "_CONDOR_") && !strings.HasPrefix(name, "_CONDOR_ANCESTOR_")
}
