package slurm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// rest is the way to Slurm by slurmrestd. What its interface can't say is left to the
// commands, where they are there as well.
type rest struct {
	base   string
	client *http.Client
	budget *budget
	tokens tokens
	cmds   *commands // nil: Slurm's commands are not on this machine
	user   string

	mu      sync.Mutex
	version *restVersion // nil before any was found
}

// restVersion is how one version of the interface puts things. A version stands here
// only with a test against a slurmrestd that offers it.
type restVersion struct {
	name string // "v0.0.38"
	// submission makes the body of a submission.
	submission func(r *request, script string, members int) any
	// cant names the element of JSDL that a request has and the version can't express.
	cant       func(*request) string
	jobs       func([]byte) ([]record, error)
	nodes      func([]byte) ([]node, error)
	partitions func([]byte) ([]partition, error)
}

// restVersions are those that are offered, the best first.
var restVersions = []*restVersion{&restV38}

// PathRest gives the way by a version of slurmrestd's interface.
func PathRest(version string) adapters.Path { return adapters.Path("slurmrestd " + version) }

// parseAddress reads "unix:/path" or "http://host:port".
func parseAddress(s string) (*url.URL, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok && strings.HasPrefix(path, "/") {
		return &url.URL{Scheme: "unix", Path: path}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.User != nil || u.RawQuery != "" {
		return nil, errors.New("it is neither unix:/path nor http://host:port")
	}
	u.Path = ""
	return u, nil
}

func newRest(s *Settings, b *budget, cmds *commands, user string) (*rest, error) {
	u, err := parseAddress(s.Slurmrestd)
	if err != nil {
		return nil, fail.E("slurm.Open", fail.Invalid, s.Slurmrestd, err)
	}
	r := &rest{base: u.String(), budget: b, user: user}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	transport := &http.Transport{MaxIdleConnsPerHost: 2 * atOnce, IdleConnTimeout: 30 * time.Second, DialContext: dialer.DialContext}
	if u.Scheme == "unix" {
		r.base = "http://slurmrestd"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		}
	}
	r.client = &http.Client{
		Transport: transport, Timeout: commandTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cmds.there() {
		r.cmds = cmds
	}
	r.tokens = tokens{file: s.Token, ask: r.cmds}
	return r, nil
}

func (r *rest) close() { r.client.CloseIdleConnections() }

func (r *rest) spoken() *restVersion {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version
}

func (r *rest) path() adapters.Path {
	if v := r.spoken(); v != nil {
		return PathRest(v.name)
	}
	return "slurmrestd"
}

// takes names what of a request can't be said in this way; "" is nothing.
func (r *rest) takes(q *request) string {
	v := r.spoken()
	switch {
	case v == nil:
		return "Resources"
	case q.User != "" && (r.tokens.file != "" || r.cmds == nil):
		return "UserName"
	}
	return v.cant(q)
}

// reply is what every answer has.
type reply struct {
	Errors []struct {
		Description string `json:"description"`
		Error       string `json:"error"`
	} `json:"errors"`
	JobID int64 `json:"job_id"`
	Meta  struct {
		Slurm restSlurm `json:"Slurm"`
		Lower restSlurm `json:"slurm"`
	} `json:"meta"`
}

type restSlurm struct {
	Release string `json:"release"`
	Cluster string `json:"cluster"`
}

// call sends one request. sent says that it may have reached Slurm.
func (r *rest) call(ctx context.Context, user, method, path string, body any) (data []byte, status int, sent bool, err error) {
	token, err := r.tokens.get(ctx, user)
	if err != nil {
		return nil, 0, false, err
	}
	if err := r.budget.wait(ctx); err != nil {
		return nil, 0, false, err
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, 0, false, fail.E("slurm.slurmrestd", fail.Internal, path, err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, content)
	if err != nil {
		return nil, 0, false, fail.E("slurm.slurmrestd", fail.Internal, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("X-SLURM-USER-NAME", user)
		req.Header.Set("X-SLURM-USER-TOKEN", token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		op, ok := errors.AsType[*net.OpError](err)
		sent = !(ok && op.Op == "dial")
		return nil, 0, sent, fail.Errorf("slurm.slurmrestd", fail.Unavailable, path, "slurmrestd does not answer").Because(err)
	}
	defer resp.Body.Close() // only read
	data, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, resp.StatusCode, true, fail.Errorf("slurm.slurmrestd", fail.Unavailable, path, "slurmrestd's answer breaks off").Because(err)
	case len(data) > maxAnswer:
		return nil, resp.StatusCode, true, fail.Errorf("slurm.slurmrestd", fail.Unavailable, path, "slurmrestd's answer is larger than %d bytes", maxAnswer)
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		r.tokens.forget(user)
		return nil, resp.StatusCode, false, fail.Errorf("slurm.slurmrestd", fail.Unavailable, path, "slurmrestd does not take the gateway's token (%s); give a fresh one in the setting token", resp.Status)
	}
	if resp.StatusCode == http.StatusOK {
		r.budget.answer()
	}
	return data, resp.StatusCode, true, nil
}

// ask sends a request that only asks.
func (r *rest) ask(ctx context.Context, path string) ([]byte, error) {
	data, status, _, err := r.call(ctx, r.user, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if status == http.StatusOK {
		return data, nil
	}
	err = complainedOf(data, status)
	if !fail.Is(err, fail.NotFound) {
		err = fail.Errorf("slurm.slurmrestd", fail.Unavailable, path, "%s", fail.Sentence(err))
	}
	return nil, err
}

// complainedOf gives the error of an answer that is none.
func complainedOf(data []byte, status int) error {
	var said reply
	var lines []string
	if json.Unmarshal(data, &said) == nil {
		for _, e := range said.Errors {
			line := e.Error
			if e.Description != "" {
				line += ": " + e.Description
			}
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return fail.Errorf("slurm.slurmrestd", fail.Uncertain, "", "slurmrestd answers %d %s", status, http.StatusText(status)).Because(fmt.Errorf("%.300q", data))
	}
	return complaint("slurm.slurmrestd", []byte(strings.Join(lines, "\n")))
}

func (r *rest) probe(ctx context.Context) (*facts, error) {
	var last error
	for _, v := range restVersions {
		data, status, _, err := r.call(ctx, r.user, http.MethodGet, "/slurm/"+v.name+"/ping", nil)
		if err != nil {
			return nil, err
		}
		if status == http.StatusNotFound {
			last = fail.Errorf("slurm.probe", fail.Unavailable, v.name, "slurmrestd offers none of the versions that this gateway speaks, which are %s", spokenVersions())
			continue
		}
		var said struct {
			reply
			Pings []struct {
				Ping       string `json:"ping"`
				Pinged     string `json:"pinged"`
				Responding bool   `json:"responding"`
			} `json:"pings"`
		}
		if status != http.StatusOK || json.Unmarshal(data, &said) != nil {
			last = fail.Errorf("slurm.probe", fail.Unavailable, v.name, "%s", fail.Sentence(complainedOf(data, status)))
			continue
		}
		up := false
		for _, p := range said.Pings {
			up = up || p.Ping == "UP" || p.Pinged == "UP" || p.Responding
		}
		if !up {
			return nil, fail.Errorf("slurm.probe", fail.Unavailable, "", "Slurm's controller is down")
		}
		r.mu.Lock()
		r.version = v
		r.mu.Unlock()
		if r.cmds != nil {
			if f, err := r.cmds.probe(ctx); err == nil {
				return f, nil
			}
		}
		return &facts{Version: said.Meta.Slurm.Release + said.Meta.Lower.Release}, nil
	}
	return nil, last
}

func spokenVersions() string {
	var names []string
	for _, v := range restVersions {
		names = append(names, v.name)
	}
	return strings.Join(names, ", ")
}

func (r *rest) slurm(path string) string { return "/slurm/" + r.spoken().name + path }

func (r *rest) submit(ctx context.Context, q *request, script string, members int) (int64, error) {
	user := q.User
	if user == "" {
		user = r.user
	}
	data, status, sent, err := r.call(ctx, user, http.MethodPost, r.slurm("/job/submit"), r.spoken().submission(q, script, members))
	if err != nil {
		if sent {
			return 0, fail.Errorf("slurm.submit", fail.Uncertain, q.Name, "slurmrestd did not answer whether Slurm took the job").Because(err)
		}
		return 0, err
	}
	var said reply
	if json.Unmarshal(data, &said) == nil && said.JobID > 0 { // beside it may stand what is no error
		return said.JobID, nil
	}
	return 0, complainedOf(data, status)
}

func (r *rest) jobs(ctx context.Context, _ []string) ([]record, error) {
	data, err := r.ask(ctx, r.slurm("/jobs"))
	if err != nil {
		return nil, err
	}
	records, err := r.spoken().jobs(data)
	if err != nil {
		return nil, fail.Errorf("slurm.jobs", fail.Unavailable, "", "slurmrestd's list of jobs can't be understood").Because(err)
	}
	return records, nil
}

// past is left to sacct: this version of the interface gives wrong exit codes.
func (r *rest) past(ctx context.Context, names []string, since time.Time) ([]record, error) {
	if r.cmds == nil {
		return nil, nil
	}
	return r.cmds.past(ctx, names, since)
}

// cancel takes one command for many jobs rather than a request for each.
func (r *rest) cancel(ctx context.Context, ids []jobID) error {
	if r.cmds != nil && len(ids) > 1 {
		return r.cmds.cancel(ctx, ids)
	}
	for _, id := range ids {
		data, status, _, err := r.call(ctx, r.user, http.MethodDelete, r.slurm("/job/"+id.String()), nil)
		if err != nil {
			return err
		}
		if err := failed(data, status); err != nil && !fail.Is(err, fail.NotFound) && !fail.Is(err, fail.Conflict) {
			return err
		}
	}
	return nil
}

// failed gives the error of an answer, if it is one.
func failed(data []byte, status int) error {
	var said reply
	if status == http.StatusOK && json.Unmarshal(data, &said) == nil && len(said.Errors) == 0 {
		return nil
	}
	return complainedOf(data, status)
}

func (r *rest) hold(ctx context.Context, ids []jobID, held bool) error {
	if r.cmds != nil { // which take many at once, and know about members of arrays
		return r.cmds.hold(ctx, ids, held)
	}
	for _, id := range ids {
		data, status, _, err := r.call(ctx, r.user, http.MethodPost, r.slurm("/job/"+id.String()), map[string]any{"hold": held})
		if err == nil {
			err = failed(data, status)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *rest) suspend(ctx context.Context, id jobID, stopped bool) error {
	if r.cmds == nil {
		return fail.Errorf("slurm.suspend", fail.Unsupported, id.String(), "slurmrestd suspends no jobs")
	}
	return r.cmds.suspend(ctx, id, stopped)
}

func (r *rest) site(ctx context.Context) (*siteInfo, error) {
	nodes, err := r.ask(ctx, r.slurm("/nodes"))
	if err != nil {
		return nil, err
	}
	partitions, err := r.ask(ctx, r.slurm("/partitions"))
	if err != nil {
		return nil, err
	}
	info := new(siteInfo)
	v := r.spoken()
	if info.Nodes, err = v.nodes(nodes); err == nil {
		info.Partitions, err = v.partitions(partitions)
	}
	if err != nil || len(info.Nodes) == 0 || len(info.Partitions) == 0 {
		return nil, fail.Errorf("slurm.site", fail.Unavailable, "", "slurmrestd's list of nodes and partitions can't be understood").Because(err)
	}
	info.join()
	if r.cmds != nil {
		info.Qualities = r.cmds.qualities(ctx)
	}
	return info, nil
}

// The interface v0.0.38, of Slurm 22.05.
var restV38 = restVersion{
	name: "v0.0.38",
	cant: func(r *request) string {
		switch { // each seen to be refused, or passed over
		case r.Exclusive:
			return "ExclusiveExecution"
		case r.Gres != "":
			return "GPU"
		}
		return ""
	},
	submission: func(r *request, script string, members int) any {
		job := map[string]any{
			"name": r.Name, "current_working_directory": r.Dir, "standard_output": r.Log, "standard_error": r.Log, "standard_input": "/dev/null", "open_mode": "append",
			"environment": map[string]string{"PORTOLAN": "1"}, "requeue": r.Requeue,
		}
		text := func(key, value string) {
			if value != "" {
				job[key] = value
			}
		}
		count := func(key string, n int64) {
			if n > 0 {
				job[key] = n
			}
		}
		text("comment", r.Comment)
		text("account", r.Account)
		text("partition", r.Partition)
		text("qos", r.QOS)
		text("reservation", r.Reservation)
		if r.Nodes > 0 {
			job["nodes"] = []int{r.Nodes, max(r.Nodes, r.MaxNodes)}
		}
		count("tasks", int64(r.Tasks))
		count("tasks_per_node", int64(r.TasksPerNode))
		count("cpus_per_task", int64(r.CPUsPerTask))
		count("memory_per_node", r.Memory)
		count("temporary_disk_per_node", r.Tmp)
		switch {
		case r.Minutes > 0:
			job["time_limit"] = r.Minutes
		case r.Minutes < 0:
			job["time_limit"] = uint32(0xffffffff) // INFINITE
		}
		text("nodelist", r.NodeList)
		text("exclude_nodes", r.Exclude)
		if !r.Deadline.IsZero() {
			job["deadline"] = restClock(r.Deadline)
		}
		if !r.Begin.IsZero() {
			job["begin_time"] = restClock(r.Begin)
		}
		if r.Nice != 0 {
			job["nice"] = r.Nice
		}
		text("licenses", r.Licenses)
		text("constraints", r.Constraint)
		if r.Hold {
			job["hold"] = true
		}
		if members > 0 {
			job["array"] = "0-" + strconv.Itoa(members-1)
		}
		return map[string]any{"script": script, "job": job}
	},
	jobs: func(data []byte) ([]record, error) {
		var said struct {
			Jobs []struct {
				JobID     int64  `json:"job_id"`
				ArrayJob  int64  `json:"array_job_id"`
				ArrayTask *int   `json:"array_task_id"`
				Tasks     string `json:"array_task_string"`
				Name      string `json:"name"`
				User      string `json:"user_name"`
				State     string `json:"job_state"`
				Exit      int    `json:"exit_code"`
				Reason    string `json:"state_reason"`
				Described string `json:"state_description"`
				Nodes     string `json:"nodes"`
				Restarts  int    `json:"restart_cnt"`
				Submitted int64  `json:"submit_time"`
				Started   int64  `json:"start_time"`
				Ended     int64  `json:"end_time"`
			} `json:"jobs"`
		}
		if err := json.Unmarshal(data, &said); err != nil {
			return nil, err
		}
		records := make([]record, 0, len(said.Jobs))
		for _, j := range said.Jobs {
			r := record{
				ID: jobID{Job: j.JobID, Task: -1}, Name: j.Name, User: j.User, State: firstWord(j.State), Reason: j.Reason, Status: j.Exit, Exact: true,
				Nodes: j.Nodes, Restarts: j.Restarts, Submitted: seconds(j.Submitted), Started: seconds(j.Started), Ended: seconds(j.Ended),
			}
			if j.Described != "" {
				r.Reason = j.Described
			}
			switch {
			case j.ArrayJob > 0 && j.ArrayTask != nil:
				r.ID = jobID{Job: j.ArrayJob, Task: *j.ArrayTask}
			case j.ArrayJob > 0 && j.Tasks != "":
				r.ID, r.Rest = jobID{Job: j.ArrayJob, Task: -1}, true
			}
			records = append(records, r)
		}
		return records, nil
	},
	nodes: func(data []byte) ([]node, error) {
		var said struct {
			Nodes []struct {
				Name       string   `json:"name"`
				Arch       string   `json:"architecture"`
				OS         string   `json:"operating_system"`
				CPUs       int      `json:"cpus"`
				Threads    int      `json:"threads"`
				Alloc      int      `json:"alloc_cpus"`
				Memory     int64    `json:"real_memory"`
				Used       int64    `json:"alloc_memory"`
				Tmp        int64    `json:"temporary_disk"`
				State      string   `json:"state"`
				Flags      []string `json:"state_flags"`
				Features   string   `json:"active_features"`
				Gres       string   `json:"gres"`
				Partitions []string `json:"partitions"`
			} `json:"nodes"`
		}
		if err := json.Unmarshal(data, &said); err != nil {
			return nil, err
		}
		var nodes []node
		for _, n := range said.Nodes {
			nodes = append(nodes, node{
				Name: n.Name, Arch: n.Arch, OS: n.OS, CPUs: n.CPUs, Threads: n.Threads, Alloc: n.Alloc, Memory: n.Memory, Used: n.Used, Tmp: n.Tmp,
				State: strings.ToUpper(strings.Join(append([]string{n.State}, n.Flags...), "+")), Features: list(n.Features), Gres: n.Gres, Partitions: n.Partitions,
			})
		}
		return nodes, nil
	},
	partitions: func(data []byte) ([]partition, error) {
		var said struct {
			Partitions []struct {
				Name      string   `json:"name"`
				Flags     []string `json:"flags"`
				State     string   `json:"state"`
				Max       *int64   `json:"max_time_limit"`
				Default   *int64   `json:"default_time_limit"`
				MaxNodes  *int64   `json:"maximum_nodes_per_job"`
				MaxMemory *int64   `json:"maximum_memory_per_node"`
			} `json:"partitions"`
		}
		if err := json.Unmarshal(data, &said); err != nil {
			return nil, err
		}
		positive := func(n *int64) int64 {
			if n == nil || *n < 0 || *n >= 0xfffffffe {
				return 0
			}
			return *n
		}
		var all []partition
		for _, p := range said.Partitions {
			all = append(all, partition{
				Name: p.Name, Default: contains(p.Flags, "default"), Up: p.State == "UP", MaxMinutes: positive(p.Max), DefaultMinutes: positive(p.Default),
				MaxNodes: int(positive(p.MaxNodes)), MaxMemory: positive(p.MaxMemory),
			})
		}
		return all, nil
	},
}

// restClock writes a time as slurmrestd reads it: in the zone of its host, which is
// taken to be that of the gateway.
func restClock(t time.Time) string { return t.Local().Format("2006-01-02T15:04:05") }

// seconds makes a time of seconds since 1970; 0 is none.
func seconds(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}
