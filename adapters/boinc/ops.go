package boinc

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The operations of the interface that are used, with typed answers.

const (
	rpc      = "submit_rpc_handler.php"
	jobFiles = "job_file.php"
)

func el(name, value string) string { return "<" + name + ">" + escape(value) + "</" + name + ">" }

// escape writes text into a request.
func escape(s string) string { return html.EscapeString(s) }

// Batch states.
const (
	stateInit = iota
	stateRunning
	stateComplete
	stateAborted
	stateRetired
)

// batchInfo is what a project says of a batch.
type batchInfo struct {
	id, jobs int64
	state    int64
	created  int64
	name     string
	list     []jobInfo
}

// jobInfo is what a project says of a job in detail.
type jobInfo struct {
	id        int64
	name      string
	canonical int64 // 0: none
	errors    []string
	exits     []int64
	cpu       float64
	status    string
}

func readBatch(e *element) batchInfo {
	b := batchInfo{id: e.num("id"), jobs: e.num("njobs"), state: e.num("state"), created: e.num("create_time"), name: e.str("name")}
	for _, j := range e.all("job") {
		info := jobInfo{id: j.num("id"), name: j.str("name"), canonical: j.num("canonical_instance_id"), cpu: j.float("cpu_time"), status: j.str("status")}
		for _, c := range j.children {
			switch c.name {
			case "error":
				info.errors = append(info.errors, strings.TrimSpace(c.text))
			case "exit_status":
				if n, err := strconv.ParseInt(strings.TrimSpace(c.text), 10, 64); err == nil {
					info.exits = append(info.exits, n)
				}
			}
		}
		b.list = append(b.list, info)
	}
	return b
}

// createBatch makes an empty batch.
func (c *client) createBatch(ctx context.Context, app, name string) (int64, error) {
	r, err := c.call(ctx, rpc, "create_batch", el("app_name", app)+el("batch_name", name), true)
	if err != nil {
		return 0, err
	}
	id := r.num("batch_id")
	if id <= 0 {
		return 0, fmt.Errorf("create_batch: %w", errOdd)
	}
	return id, nil
}

// submitBatch puts jobs into an empty batch. It is all of them or none.
func (c *client) submitBatch(ctx context.Context, document string) error {
	r, err := c.call(ctx, rpc, "submit_batch", document, true)
	if err != nil {
		return err
	}
	if r.num("batch_id") <= 0 {
		return fmt.Errorf("submit_batch: %w", errOdd)
	}
	return nil
}

// queryBatch asks for a batch with its jobs in detail.
func (c *client) queryBatch(ctx context.Context, id int64) (batchInfo, error) {
	r, err := c.call(ctx, rpc, "query_batch", el("batch_id", strconv.FormatInt(id, 10))+el("get_job_details", "1"), false)
	if err != nil {
		return batchInfo{}, err
	}
	b := readBatch(r)
	if b.id != id {
		return batchInfo{}, fmt.Errorf("query_batch: %w", errOdd)
	}
	return b, nil
}

// queryBatches lists the account's batches that are not retired, without their jobs.
func (c *client) queryBatches(ctx context.Context) ([]batchInfo, error) {
	r, err := c.call(ctx, rpc, "query_batches", "", false)
	if err != nil {
		return nil, err
	}
	var list []batchInfo
	for _, e := range r.all("batch") {
		list = append(list, readBatch(e))
	}
	return list, nil
}

// news is the answer of query_batch2: by job name what became of it.
type news struct {
	serverTime float64
	status     map[string]string
}

// unknownBatch is the name that query_batch2 failed for.
var unknownBatch = regexp.MustCompile(`^no batch named (.*)$`)

// queryChanges asks for the jobs of batches that changed since a time of the server's;
// 0 asks for all.
func (c *client) queryChanges(ctx context.Context, names []string, since int64) (news, error) {
	var b strings.Builder
	for _, n := range names {
		b.WriteString(el("batch_name", n))
	}
	if since > 0 {
		b.WriteString(el("min_mod_time", strconv.FormatInt(since, 10)))
	}
	r, err := c.call(ctx, rpc, "query_batch2", b.String(), false)
	if err != nil {
		return news{}, err
	}
	n := news{serverTime: r.float("server_time"), status: map[string]string{}}
	for _, j := range r.all("job") {
		n.status[j.str("job_name")] = j.str("status")
	}
	return n, nil
}

// instance is one sending of a job.
type instance struct {
	id     int64
	name   string
	state  string // English prose
	sizes  []int64
	number int // the last number of its name
}

// queryJob asks for a job's instances.
func (c *client) queryJob(ctx context.Context, id int64) ([]instance, error) {
	r, err := c.call(ctx, rpc, "query_job", el("job_id", strconv.FormatInt(id, 10)), false)
	if err != nil {
		return nil, err
	}
	var list []instance
	for _, e := range r.all("instance") {
		i := instance{id: e.num("id"), name: e.str("name"), state: e.str("state")}
		for _, f := range e.all("outfile") {
			i.sizes = append(i.sizes, f.num("size"))
		}
		i.number, _ = strconv.Atoi(i.name[strings.LastIndexByte(i.name, '_')+1:])
		list = append(list, i)
	}
	slices.SortStableFunc(list, func(a, b instance) int { return a.number - b.number })
	return list, nil
}

// queryStderr asks for what the main program of a completed job wrote; "" where the
// server can't tell, which newer ones can't for jobs that failed.
func (c *client) queryStderr(ctx context.Context, job string) (string, error) {
	r, err := c.call(ctx, rpc, "query_completed_job", el("job_name", job), true) // once: a failure is for good
	if err != nil {
		return "", err
	}
	return unescape.Replace(r.child("completed_job").str("stderr_out")), nil
}

// abortJobs aborts jobs by name. The project stops at the first name that it does not
// know: those before it are aborted.
func (c *client) abortJobs(ctx context.Context, names []string) error {
	var b strings.Builder
	for _, n := range names {
		b.WriteString(el("job_name", n))
	}
	r, err := c.call(ctx, rpc, "abort_jobs", b.String(), false) // may be repeated
	if err != nil {
		return err
	}
	if r.str("success") != "1" { // beside it stand tags that do not end
		return fmt.Errorf("abort_jobs: %w", errOdd)
	}
	return nil
}

func (c *client) retireBatch(ctx context.Context, id int64) error {
	_, err := c.call(ctx, rpc, "retire_batch", el("batch_id", strconv.FormatInt(id, 10)), false) // may be repeated
	return err
}

// templates says whether an application has templates of its own, and how many input
// files they want.
func (c *client) templates(ctx context.Context, app string) (own bool, inputs int, err error) {
	r, err := c.call(ctx, rpc, "get_templates", el("app_name", app), false)
	if e, ok := errors.AsType[*reported](err); ok && strings.HasPrefix(e.message, "template file missing") {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, err
	}
	t := r.child("templates").child("input_template")
	for _, f := range t.all("file_info") {
		if !f.has("physical_name") {
			inputs++
		}
	}
	return true, inputs, nil
}

// absent says which files the project has not.
func (c *client) absent(ctx context.Context, files []file) ([]file, error) {
	var b strings.Builder
	for _, f := range files {
		b.WriteString(el("phys_name", f.name))
	}
	r, err := c.call(ctx, jobFiles, "query_files", b.String(), false)
	if err != nil {
		return nil, err
	}
	list := r.child("absent_files")
	if list == nil {
		return nil, fmt.Errorf("query_files: %w", errOdd)
	}
	var missing []file
	for _, e := range list.all("file") {
		n, err := strconv.Atoi(strings.TrimSpace(e.text))
		if err != nil || n < 0 || n >= len(files) {
			return nil, fmt.Errorf("query_files: %w", errOdd)
		}
		missing = append(missing, files[n])
	}
	return missing, nil
}

// upload sends files. Their names are made of their contents, so that a file that is
// there already is the same.
func (c *client) upload(ctx context.Context, files []file) error {
	var b strings.Builder
	for _, f := range files {
		b.WriteString(el("phys_name", f.name))
	}
	_, err := c.call(ctx, jobFiles, "upload_files", b.String(), true, files...)
	return err
}

// maxUploads is PHP's own bound of files in one form.
const maxUploads = 20

// stage sees to it that the project has the files, sending only what it lacks. After
// a failed upload it asks again: the file is there as often as not.
func (c *client) stage(ctx context.Context, files []file, maxRequest int) error {
	for tries := 0; ; tries++ {
		var missing []file
		for some := range slices.Chunk(files, 500) {
			m, err := c.absent(ctx, some)
			if err != nil {
				return err
			}
			missing = append(missing, m...)
		}
		if len(missing) == 0 {
			return nil
		}
		files = missing
		var last error
		for _, some := range portions(missing, maxRequest) {
			if last = c.upload(ctx, some); last != nil {
				break
			}
		}
		if last == nil {
			return nil
		}
		if tries == 2 || ended(ctx, last) {
			return last
		}
		if r, ok := errors.AsType[*reported](last); ok {
			return r
		}
	}
}

// portions splits files for uploads.
func portions(files []file, maxRequest int) [][]file {
	var all [][]file
	size := 0
	for _, f := range files {
		n := len(f.content) + 512
		if last := len(all) - 1; last >= 0 && len(all[last]) < maxUploads && size+n <= maxRequest {
			all[last] = append(all[last], f)
			size += n
			continue
		}
		all = append(all, []file{f})
		size = n
	}
	return all
}

// projectInfo is the project's own description.
type projectInfo struct {
	name, version      string
	platforms          []string
	webDown, schedDown bool
}

func (c *client) project(ctx context.Context) (projectInfo, error) {
	p, err := c.projectOnce(ctx)
	c.met(err)
	return p, err
}

func (c *client) projectOnce(ctx context.Context) (projectInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	status, _, data, err := c.send(ctx, "GET", c.base+"get_project_config.php", map[string][]string{"User-Agent": {"portolan"}}, nil, false, 1<<20)
	if err != nil {
		return projectInfo{}, err
	}
	if status != 200 {
		return projectInfo{}, fmt.Errorf("HTTP status %d for get_project_config.php", status)
	}
	r, err := parseReply(data, "project_config")
	if err != nil {
		return projectInfo{}, fmt.Errorf("get_project_config.php: %w", err)
	}
	if err := errorOf("get_project_config.php", r); err != nil {
		return projectInfo{}, err
	}
	p := projectInfo{name: r.str("name"), version: r.str("server_version"), webDown: r.str("web_stopped") == "1", schedDown: r.str("sched_stopped") == "1"}
	for _, e := range r.child("platforms").all("platform") {
		p.platforms = append(p.platforms, e.str("platform_name"))
	}
	slices.Sort(p.platforms)
	p.platforms = slices.Compact(p.platforms)
	c.mu.Lock()
	c.version = p.version
	c.mu.Unlock()
	return p, nil
}

// jobZip gets the outputs of a job's canonical instance where they are kept.
func (c *client) jobZip(ctx context.Context, job int64, limit int64) ([]byte, error) {
	id := strconv.FormatInt(job, 10)
	return c.output(ctx, "get_output.php", url.Values{"cmd": {"workunit_files"}, "wu_id": {id}, "auth_str": {c.keyed(id)}}, false, limit)
}

// batchZip gets those of all jobs of a batch.
func (c *client) batchZip(ctx context.Context, batch int64, limit int64) ([]byte, error) {
	id := strconv.FormatInt(batch, 10)
	return c.output(ctx, "get_output.php", url.Values{"cmd": {"batch_files"}, "batch_id": {id}, "auth_str": {c.keyed(id)}}, false, limit)
}

// resultFile gets one output of any instance, by its place among those that its
// client reported.
func (c *client) resultFile(ctx context.Context, result string, n int, limit int64) ([]byte, error) {
	return c.output(ctx, "get_output.php", url.Values{
		"cmd": {"result_file"}, "result_name": {result}, "file_num": {strconv.Itoa(n)}, "auth_str": {c.keyed(result)},
	}, false, limit)
}

// collectedFile gets an output that an assimilator collected, by its place in the
// output template.
func (c *client) collectedFile(ctx context.Context, result int64, n int, limit int64) ([]byte, error) {
	return c.output(ctx, "get_output3.php", url.Values{
		"action": {"get_file"}, "result_id": {strconv.FormatInt(result, 10)}, "index": {strconv.Itoa(n)}, "download": {"1"},
	}, true, limit)
}

// collectedZip gets all that an assimilator collected of a batch.
func (c *client) collectedZip(ctx context.Context, batch int64, limit int64) ([]byte, error) {
	return c.output(ctx, "get_output3.php", url.Values{"action": {"get_batch_zip"}, "batch_id": {strconv.FormatInt(batch, 10)}}, true, limit)
}
