package boinctest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// submitHandler is submit_rpc_handler.php.
func (c *call) submitHandler() {
	operations := map[string]func(){
		"ping": c.ping, "create_batch": c.createBatch, "estimate_batch": c.estimateBatch, "submit_batch": c.submitBatch,
		"query_batches": c.queryBatches, "query_batch": c.queryBatch, "query_batch2": c.queryBatch2, "query_job": c.queryJob,
		"query_completed_job": c.queryCompletedJob, "abort_batch": c.abortBatch, "abort_jobs": c.abortJobs, "retire_batch": c.retireBatch,
		"set_expire_time": c.setExpireTime, "get_templates": c.getTemplates,
	}
	do, ok := operations[c.r.name]
	if !ok {
		c.fail(-1, "bad command")
	}
	c.op = c.r.name
	c.start()
	do()
}

// login finds the user, who must be allowed to use the interface; with an
// application, to submit to it.
func (c *call) login(app *App) {
	key := c.r.str("authenticator")
	if key == "" {
		c.fail(-1, "no authenticator")
	}
	c.user = c.p.user(func(u *User) bool { return u.Authenticator == key })
	if c.user == nil {
		c.fail(-1, "bad authenticator")
	}
	switch {
	case app == nil && !c.user.Submit:
		c.fail(-1, "no file access")
	case app != nil && (!c.user.Submit || !c.user.SubmitAll && !slices.Contains(c.user.Apps, app.Name)):
		c.fail(-1, "no submit access")
	}
}

// submitApp finds an application before it asks who wants it.
func (c *call) submitApp(name string) *App {
	app := c.p.app(name)
	if app == nil {
		c.fail(-1, "app not found: "+name)
	}
	c.login(app)
	return app
}

// batch finds the batch that the request names.
func (c *call) batch() *Batch {
	var b *Batch
	switch {
	case c.r.num("batch_id") != 0:
		b = c.p.batches[c.r.num("batch_id")]
	case c.r.str("batch_name") != "":
		b = c.p.batchNamed(c.r.str("batch_name"))
	default:
		c.fail(-1, "batch not specified")
	}
	if b == nil {
		c.fail(-1, "no such batch")
	}
	return b
}

// batchNamed gives the oldest batch of a name, whoever owns it.
func (p *Project) batchNamed(name string) *Batch {
	var found *Batch
	for _, b := range p.batches {
		if b.Name == name && (found == nil || b.ID < found.ID) {
			found = b
		}
	}
	return found
}

func (c *call) own(b *Batch, message string) {
	if b.User != c.user.ID {
		c.fail(-1, message)
	}
}

func (c *call) ping() {
	c.print("<success>1</success>\n")
	c.end()
}

func (c *call) createBatch() {
	app := c.submitApp(c.r.str("app_name"))
	b := c.insertBatch(app, c.r.str("batch_name"), 0, c.r.num("expire_time"))
	c.print("<batch_id>%d</batch_id>\n", b.ID)
	c.end()
}

// insertBatch makes a row. The column of the name holds 255 characters.
func (c *call) insertBatch(app *App, name string, jobs int, expire int64) *Batch {
	if name == "" {
		name = fmt.Sprintf("%s:%s:%s", c.user.Name, app.Name, c.p.config.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 +0000"))
	}
	if len([]rune(name)) > 255 {
		c.fatal("Data too long for column 'name' at row 1", "inc/boinc_db.inc(498): DbConn-&gt;insert()", "user/submit_rpc_handler.php(310): BoincBatch::insert()")
	}
	b := &Batch{ID: c.p.id("batch"), User: c.user.ID, CreateTime: c.p.now(), ExpireTime: expire, NJobs: jobs, Name: name, App: app.ID}
	c.p.batches[b.ID] = b
	c.p.touch(b)
	return b
}

func (c *call) queryBatches() {
	c.login(nil)
	var mine []*Batch
	for _, b := range c.p.batches {
		if b.User == c.user.ID && b.State < BatchRetired {
			mine = append(mine, b)
		}
	}
	slices.SortFunc(mine, func(a, b *Batch) int { return int(a.ID - b.ID) })
	for _, b := range mine {
		c.count(b)
		c.print("    <batch>\n")
		c.printBatch(b)
		c.print("   </batch>\n")
	}
	c.print("</%s>\n", c.op)
}

// count works a batch's counts out anew, which happens when somebody asks, and only
// while the batch is not over.
func (c *call) count(b *Batch) {
	c.noise("Deprecated", "Creation of dynamic property BoincBatch::$njobs_success is deprecated", "inc/submit_util.inc", 187)
	c.noise("Deprecated", "Creation of dynamic property BoincBatch::$njobs_in_prog is deprecated", "inc/submit_util.inc", 188)
	c.p.count(b)
}

func (p *Project) count(b *Batch) {
	if b.State > BatchInProgress {
		return
	}
	jobs := p.ofBatch[b.ID]
	done, failed, credit := 0, 0, 0.0
	for _, w := range jobs {
		switch {
		case w.Canonical != 0:
			done++
			credit += w.Credit
		case w.ErrorMask != 0:
			failed++
		}
	}
	if len(jobs) == 0 {
		return
	}
	b.FractionDone = float64(done+failed) / float64(len(jobs))
	b.NErrors, b.CreditCanonical = failed, credit
	if done+failed == len(jobs) && b.State == BatchInProgress {
		b.State, b.CompletionTime = BatchComplete, p.now()
	}
	p.touch(b)
}

func (c *call) printBatch(b *Batch) {
	c.print(`
        <id>%d</id>
        <create_time>%d</create_time>
        <expire_time>%d</expire_time>
        <est_completion_time>0</est_completion_time>
        <njobs>%d</njobs>
        <fraction_done>%s</fraction_done>
        <nerror_jobs>%d</nerror_jobs>
        <state>%d</state>
        <completion_time>%d</completion_time>
        <credit_estimate>%s</credit_estimate>
        <credit_canonical>%s</credit_canonical>
        <name>%s</name>
        <app_name>%s</app_name>
`, b.ID, b.CreateTime, b.ExpireTime, b.NJobs, phpFloat(b.FractionDone), b.NErrors, b.State, b.CompletionTime,
		phpFloat(b.CreditEstimate), phpFloat(b.CreditCanonical), b.Name, c.p.appOf(b.App).Name)
	if c.r.num("get_cpu_time") != 0 {
		total := 0.0
		for _, w := range c.p.ofBatch[b.ID] {
			if r := c.p.results[w.Canonical]; r != nil {
				total += r.CPUTime
			}
		}
		c.print("        <total_cpu_time>%s</total_cpu_time>\n", phpFloat(total))
	}
}

func (c *call) queryBatch() {
	c.login(nil)
	b := c.batch()
	c.own(b, "not owner of batch")
	c.count(b)
	c.printBatch(b)
	details := c.r.num("get_job_details") != 0
	for _, w := range c.p.ofBatch[b.ID] {
		c.print("        <job>\n        <id>%d</id>\n        <name>%s</name>\n        <canonical_instance_id>%d</canonical_instance_id>\n", w.ID, w.Name, w.Canonical)
		if details {
			c.printDetails(w)
		}
		c.print("        </job>\n")
	}
	c.print("</%s>\n", c.op)
}

func (c *call) printDetails(w *Workunit) {
	for bit, name := range errorNames {
		if w.ErrorMask&(1<<bit) != 0 {
			c.print("   <error>%s</error>\n", name)
		}
	}
	status := "queued"
	running := slices.ContainsFunc(c.p.ofWU[w.ID], func(r *Result) bool { return r.ServerState == ServerInProgress })
	switch {
	case w.Canonical != 0:
		status = "done"
		if r := c.p.results[w.Canonical]; r != nil {
			c.print("            <cpu_time>%s</cpu_time>\n", phpFloat(r.CPUTime))
		}
	case w.ErrorMask != 0:
		for _, r := range c.p.ofWU[w.ID] {
			if r.ServerState == ServerOver && r.Outcome == OutcomeClientError {
				c.print("            <exit_status>%d</exit_status>\n", r.ExitStatus)
			}
		}
	case running:
		status = "in_progress"
	}
	if w.ErrorMask != 0 { // even of a job that was done
		status = "error"
	}
	c.print("            <status>%s</status>\n", status)
}

func (c *call) queryBatch2() {
	c.login(nil)
	since := c.r.num("min_mod_time")
	var list []*Batch
	for _, n := range c.r.all("batch_name") {
		b := c.p.batchNamed(n.text)
		if b == nil {
			c.fail(-1, "no batch named "+n.text)
		}
		c.own(b, "not owner of "+n.text)
		list = append(list, b)
	}
	now := c.p.config.Now()
	c.print("<server_time>%s</server_time>\n", phpFloat(float64(now.UnixMicro())/1e6))
	for _, b := range list {
		var jobs []*Workunit
		for _, w := range c.p.ofBatch[b.ID] {
			if w.ModTime >= since {
				jobs = append(jobs, w)
			}
		}
		c.print("   <batch_size>%d</batch_size>\n", len(jobs))
		for _, w := range jobs {
			c.print("    <job>\n        <job_name>%s</job_name>\n        <status>%s</status>\n    </job>\n", w.Name, c.p.summary(w))
		}
	}
	c.print("</%s>\n", c.op)
}

func (p *Project) summary(w *Workunit) string {
	switch {
	case w.Canonical != 0:
		return "DONE"
	case w.ErrorMask != 0:
		return "ERROR"
	case slices.ContainsFunc(p.ofWU[w.ID], func(r *Result) bool { return r.ServerState == ServerInProgress }):
		return "IN_PROGRESS"
	}
	return "UNSENT"
}

func (c *call) queryJob() {
	c.login(nil)
	w := c.p.wus[c.r.num("job_id")]
	if w == nil {
		c.fail(-1, "no such job")
	}
	if b := c.p.batches[w.Batch]; b != nil {
		c.own(b, "not owner")
	}
	for _, r := range c.p.ofWU[w.ID] {
		c.print("    <instance>\n        <name>%s</name>\n        <id>%d</id>\n        <state>%s</state>\n", r.Name, r.ID, r.state())
		for _, f := range r.Files {
			if !f.Moved {
				c.print("        <outfile>\n            <size>%d</size>\n        </outfile>\n", f.Size)
			}
		}
		c.print("</instance>\n")
	}
	c.print("</%s>\n", c.op)
}

// state is an instance's state in English prose.
func (r *Result) state() string {
	switch r.ServerState {
	case ServerInactive:
		return "Inactive"
	case ServerUnsent:
		return "Unsent"
	case ServerInProgress:
		return "In progress"
	}
	switch r.Outcome {
	case OutcomeSuccess:
		return [...]string{
			ValidateInit: "Completed, waiting for validation", ValidateValid: "Completed and validated", ValidateInvalid: "Completed, marked as invalid",
			ValidateNoCheck: "Completed, can't validate", ValidateInconclusive: "Completed, validation inconclusive", ValidateTooLate: "Completed, too late to validate",
		}[r.ValidateState]
	case OutcomeCouldntSend:
		return "Couldn't send"
	case OutcomeClientError:
		switch r.ExitStatus {
		case 202, -221:
			return "Cancelled by server"
		case 200, -233:
			return "Not started by deadline - canceled"
		}
		return [...]string{
			ClientNew: "Error while computing", ClientDownloading: "Error while downloading", ClientDownloaded: "Error while computing",
			ClientComputeError: "Error while computing", ClientUploading: "Error while uploading", ClientUploaded: "Error while computing",
			ClientAborted: "Aborted", ClientUploadFailed: "Upload failed",
		}[r.ClientState]
	case OutcomeNoReply:
		return "Timed out - no response"
	case OutcomeDidntNeed:
		return "Didn't need"
	case OutcomeValidateError:
		return "Validate error"
	case OutcomeDetached:
		return "Abandoned"
	}
	return "Unknown"
}

func (c *call) queryCompletedJob() {
	c.login(nil)
	w := c.p.wuNames[c.r.str("job_name")]
	if w == nil {
		c.fail(-1, "no such job")
	}
	if b := c.p.batches[w.Batch]; b != nil {
		c.own(b, "not owner")
	}
	c.print("<completed_job>\n   <error_mask>%d</error_mask>\n", w.ErrorMask)
	r := c.p.results[w.Canonical]
	if r == nil {
		// The script looks failed instances up by a variable that it never set.
		c.noise("Warning", "Undefined variable $job_id", "user/submit_rpc_handler.php", 890)
		c.fatal("You have an error in your SQL syntax; check the manual that corresponds to your MariaDB server version for the right syntax to use near '' at line 1",
			"inc/db_conn.inc(137): DbConn-&gt;enum_general()", "inc/db_conn.inc(141): DbConn-&gt;enum_fields()", "inc/boinc_db.inc(379): DbConn-&gt;enum()",
			"user/submit_rpc_handler.php(890): BoincResult::enum()", "user/submit_rpc_handler.php(1120): query_completed_job()")
	}
	c.print("   <canonical_resultid>%d</canonical_resultid>\n   <exit_status>%d</exit_status>\n   <elapsed_time>%s</elapsed_time>\n   <cpu_time>%s</cpu_time>\n   <stderr_out><![CDATA[\n%s   ]]></stderr_out>\n</completed_job>\n",
		w.Canonical, r.ExitStatus, phpFloat(r.ElapsedTime), phpFloat(r.CPUTime), escapeHTML(r.Stderr))
	c.end()
}

func (c *call) abortBatch() {
	c.login(nil)
	b := c.batch()
	c.own(b, "not owner")
	for _, w := range c.p.ofBatch[b.ID] {
		c.p.cancel(w)
	}
	c.p.count(b)
	b.State = BatchAborted
	c.p.touch(b)
	c.print("<success>1</success>\n")
	c.end()
}

func (c *call) abortJobs() {
	c.login(nil)
	for _, n := range c.r.all("job_name") {
		w := c.p.wuNames[n.text]
		if w == nil {
			c.fail(-1, "no job "+n.text)
		}
		if b := c.p.batches[w.Batch]; b != nil {
			c.own(b, "not owner of batch")
		}
		c.p.cancel(w)
		c.print("<aborted %s>\n", w.Name) // with no end tag
	}
	c.print("<success>1</success>\n")
	c.end()
}

func (c *call) retireBatch() {
	c.login(nil)
	b := c.batch()
	c.own(b, "not owner")
	c.p.retire(b)
	c.print("<success>1</success>\n")
	c.end()
}

func (c *call) setExpireTime() {
	c.login(nil)
	b := c.batch()
	c.own(b, "not owner")
	b.ExpireTime = c.r.num("expire_time")
	c.p.touch(b)
	c.print("<success>1</success></%s>\n", c.op)
}

func (c *call) getTemplates() {
	var app *App
	if name := c.r.str("job_name"); name != "" && c.r.str("app_name") == "" {
		w := c.p.wuNames[name]
		if w == nil {
			c.fail(-1, "job not found: "+name)
		}
		app = c.p.appOf(w.App)
		c.login(app)
	} else {
		app = c.submitApp(c.r.str("app_name"))
	}
	if app.InputTemplate == "" || app.OutputTemplate == "" {
		c.fail(-1, "template file missing")
	}
	c.print("<templates>\n%s\n%s\n</templates>\n", strings.TrimSuffix(app.InputTemplate, "\n")+"\n", strings.TrimSuffix(app.OutputTemplate, "\n")+"\n")
	c.end()
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
