package boinctest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// job is one job of a submit_batch.
type job struct {
	n       *node
	name    string
	command string
	files   []jobInput
	input   *inputTemplate // of its own
	outputs []Output
	ownOut  bool
}

// jobInput is an input file, staged or about to be.
type jobInput struct {
	mode, source, url, md5 string
	size                   int64
	name                   string // physical
}

func (c *call) readJobs(batch *node) []*job {
	var jobs []*job
	for _, n := range batch.all("job") {
		j := &job{n: n, name: n.str("name"), command: n.str("command_line")}
		for _, f := range n.all("input_file") {
			j.files = append(j.files, jobInput{
				mode: f.str("mode"), source: f.str("source"), url: f.str("url"), md5: f.str("md5"), size: f.num("nbytes"),
			})
		}
		if t := n.child("input_template"); t != nil {
			j.input = inputTemplateOf(t)
		}
		if t := n.child("output_template"); t != nil {
			j.outputs, j.ownOut = outputsOf(t), true
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// appTemplate reads the application's own input template; nil without one.
func (c *call) appTemplate(app *App) *inputTemplate {
	if app.InputTemplate == "" {
		return nil
	}
	t, err := parseInputTemplate(app.InputTemplate)
	if err != nil {
		c.fail(-1, fmt.Sprintf("couldn't parse input template file templates/%s_in", app.Name))
	}
	return t
}

func (c *call) estimateBatch() {
	batch := c.r.child("batch")
	app := c.submitApp(batch.str("app_name"))
	t := c.appTemplate(app)
	flops := 0.0
	for _, j := range c.readJobs(batch) {
		switch {
		case j.n.has("rsc_fpops_est"):
			flops += j.n.float("rsc_fpops_est")
		case t != nil:
			l := Limits{}
			t.limits(&l)
			flops += l.FpopsEst
		}
	}
	c.print("<seconds>%s</seconds>\n", phpFloat(flops/c.p.speed()))
	c.end()
}

// speed is the project's FLOPS, reckoned from recent credit.
func (p *Project) speed() float64 {
	credit := 0.0
	for _, u := range p.config.Users {
		credit += u.AvgCredit
	}
	if credit == 0 {
		credit = 200
	}
	return 1e9 * credit / 200
}

func (c *call) submitBatch() {
	req := c.r.child("batch")
	app := c.submitApp(req.str("app_name"))
	jobs := c.readJobs(req)
	t := c.appTemplate(app)
	if t != nil {
		for i, j := range jobs {
			if need, got := t.variable(), len(j.files); need != got {
				c.fail(-1, fmt.Sprintf("wrong # of input files for job %d: need %d, got %d", i, need, got))
			}
		}
	}
	for _, j := range jobs {
		for i := range j.files {
			c.stage(&j.files[i])
		}
	}
	var b *Batch
	if id := req.num("batch_id"); id != 0 {
		b = c.p.batches[id]
		switch {
		case b == nil:
			c.fail(-1, "no batch "+itoa(id))
		case b.User != c.user.ID:
			c.fail(-1, "not owner of batch")
		case b.State != BatchInit:
			c.fail(-1, "batch not in init state")
		}
		b.NJobs = len(jobs)
		c.p.touch(b)
	} else {
		b = c.insertBatch(app, req.str("batch_name"), len(jobs), req.num("expire_time"))
	}
	c.p.commit() // each statement is its own transaction: what follows may fail
	c.log()
	if c.fault.Midway {
		c.fatal("MySQL server has gone away", "user/submit_rpc_handler.php(540): submit_jobs()")
	}
	c.createWork(app, b, req, jobs, t)
	if c.fault.StateLost {
		c.p.commit()
		c.fatal("MySQL server has gone away", "user/submit_rpc_handler.php(560): BoincBatch-&gt;update()")
	}
	b.State = BatchInProgress
	c.p.touch(b)
	c.log()
	c.print("<batch_id>%d</batch_id>\n", b.ID)
	c.end()
}

// stage puts an input file where clients will fetch it.
func (c *call) stage(f *jobInput) {
	switch f.mode {
	case "local_staged":
		f.name = f.source
	case "remote":
		f.name = "jf_" + f.md5
	case "inline":
		c.store(f, []byte(f.source))
	case "semilocal":
		content, err := c.p.fetch(f.source)
		if err != nil {
			c.fail(-1, "Can't get MD5 of file "+f.source)
		}
		c.store(f, content)
	case "local":
		c.fail(-1, "can't copy file "+f.source)
	case "sandbox":
		// Broken since the server was rewritten: the job gets the name for the content.
		if !slices.Contains(c.p.config.Sandbox, f.source) {
			c.fail(-1, "sandbox link file "+f.source+" not found")
		}
		c.store(f, []byte(f.source))
	default:
		c.fail(-1, "unsupported file mode: "+f.mode)
	}
}

func (c *call) store(f *jobInput, content []byte) {
	f.name = "jf_" + hexMD5(string(content))
	if len(content) == 0 || c.p.write("download", f.name, content) != nil {
		c.fail(-1, "can't write to file "+c.p.shown("download", f.name))
	}
}

// The jobs are made by a command-line tool that reads a line a job; nothing in the
// line is escaped.

const (
	lineMax  = 4095 // bytes of a line with its end that the tool's buffer holds, less one
	wordsMax = 100
)

// line writes a job's line.
func (j *job) line(req *node) string {
	var b strings.Builder
	if j.name != "" {
		b.WriteString(" --wu_name " + j.name)
	}
	if j.command != "" {
		b.WriteString(` --command_line "` + j.command + `"`)
	}
	for _, option := range []string{"target_team", "target_user", "target_host"} {
		if j.n.num(option) != 0 {
			b.WriteString(" --" + option + " " + itoa(j.n.num(option)))
		}
	}
	priority := req.str("priority")
	if j.n.has("priority") {
		priority = j.n.str("priority")
	}
	if priority != "" {
		b.WriteString(" --priority " + priority)
	}
	for _, f := range j.files {
		if f.mode == "remote" {
			b.WriteString(fmt.Sprintf(" --remote_file %s %d %s", f.url, f.size, f.md5))
		} else {
			b.WriteString(" " + f.name)
		}
	}
	return b.String() + "\n"
}

// words splits a line as the tool does: quotes begin and end a word, nothing is an
// escape.
func words(line string) []string {
	var list []string
	for i := 0; i < len(line); {
		switch ch := line[i]; {
		case ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r':
			i++
		case ch == '"' || ch == '\'':
			end := strings.IndexByte(line[i+1:], ch)
			if end < 0 {
				return append(list, line[i+1:])
			}
			list = append(list, line[i+1:i+1+end])
			i += end + 2
		default:
			end := strings.IndexAny(line[i:], " \t\r\n")
			if end < 0 {
				end = len(line) - i
			}
			list = append(list, line[i:i+end])
			i += end
		}
	}
	return list
}

func (c *call) toolFailed(format string, args ...any) {
	c.fail(-1, "create_work failed: "+fmt.Sprintf(format, args...)+"\n")
}

// createWork is the tool: it makes the jobs of all lines in one statement.
func (c *call) createWork(app *App, b *Batch, req *node, jobs []*job, t *inputTemplate) {
	var made []*Workunit
	var rows, docs []string
	if req.has("input_template_filename") {
		c.inputFile(req.str("input_template_filename"), &t)
	}
	for _, j := range jobs {
		lines := strings.SplitAfter(j.line(req), "\n")
		for _, line := range lines {
			if line == "" {
				continue
			}
			if len(line) >= lineMax {
				c.toolFailed("fgets() buffer was too small")
			}
			w, doc := c.jobOf(app, b, req, j, t, words(line))
			made, docs, rows = append(made, w), append(docs, doc), append(rows, w.row(doc))
		}
	}
	c.insertWork(made, docs, rows)
	for _, w := range made {
		c.p.addWU(w)
		c.p.touch(w)
		c.p.transition(w)
	}
}

// inputFile takes a template by its file name: an application's.
func (c *call) inputFile(name string, t **inputTemplate) {
	for i := range c.p.config.Apps {
		if a := &c.p.config.Apps[i]; a.Name+"_in" == name {
			*t = c.appTemplate(a)
			return
		}
	}
	c.fail(-1, "couldn't parse input template file templates/"+name)
}

// jobOf reads the words of a line and applies the templates.
func (c *call) jobOf(app *App, b *Batch, req *node, j *job, t *inputTemplate, args []string) (*Workunit, string) {
	if len(args) >= wordsMax {
		c.toolFailed("too many arguments")
	}
	now := c.p.now()
	w := &Workunit{CreateTime: now, App: app.ID, Batch: b.ID, Limits: builtIn(), ModTime: now, VersionNum: int(req.num("app_version_num")), Template: "templates/" + app.Name + "_out"}
	command := ""
	var files []Input
	for i := 0; i < len(args); i++ {
		value := func() string {
			if i++; i < len(args) {
				return args[i]
			}
			return ""
		}
		switch args[i] {
		case "--wu_name":
			w.Name = value()
		case "--command_line":
			command = value()
		case "--priority":
			w.Priority = int(phpNumber(value()))
		case "--target_host":
			w.TargetHost = int64(phpNumber(value()))
		case "--target_user":
			w.TargetUser = int64(phpNumber(value()))
		case "--target_team":
			w.TargetTeam = int64(phpNumber(value()))
		case "--remote_file":
			url, size, sum := value(), value(), value()
			files = append(files, Input{Name: "jf_" + sum, URL: url, MD5: sum, Size: int64(phpNumber(size)), Remote: true})
		default:
			if strings.HasPrefix(args[i], "--") {
				c.toolFailed("bad argument '%s'", args[i])
			}
			files = append(files, Input{Name: args[i]})
		}
	}
	if req.has("allocation_priority") {
		w.Priority = -int(c.user.LogicalNow)
		c.user.LogicalNow += j.n.float("rsc_fpops_est") / c.p.speed()
	}
	if w.Name == "" {
		w.Name = fmt.Sprintf("%s_%d_%d", app.Name, now, c.p.next["workunit"])
	}
	if j.input != nil {
		t = j.input
	}
	if t == nil {
		c.toolFailed("can't open templates/%s_in", app.Name)
	}
	setLimits(&w.Limits, req.child("job_params"))
	t.limits(&w.Limits)
	if t.hasCommand && command != "" {
		c.toolFailed("Can't specify command line both in template and create_work")
	}
	if t.hasCommand {
		command = t.commandLine
	}
	next := 0
	var xml bytes.Buffer
	for i, f := range t.files {
		in := Input{Name: f.physical}
		if f.physical == "" {
			if next >= len(files) {
				c.toolFailed("Too few var input files given; need at least %d\nprocess_input_template(): unexpected XML tag or syntax\ncreate_work() failed: -112", next+1)
			}
			in = files[next]
			next++
		}
		if !in.Remote {
			c.describe(&in)
		}
		for _, flag := range f.flags {
			fmt.Fprintf(&xml, "<%s/>\n", flag)
			in.NoDelete = in.NoDelete || flag == "no_delete" || flag == "sticky"
		}
		if i < len(t.refs) {
			in.OpenName, in.CopyFile = t.refs[i].openName, t.refs[i].copyFile
		}
		w.Inputs = append(w.Inputs, in)
	}
	if next < len(files) {
		c.toolFailed("Too many input files given; need %d, got %d", next, len(files))
	}
	w.Outputs = j.outputs
	if !j.ownOut {
		outputs, err := parseOutputs(app.OutputTemplate)
		if err != nil || app.OutputTemplate == "" {
			c.toolFailed("create_work: can't find result template templates/%s_out", app.Name)
		}
		w.Outputs = outputs
	} else {
		w.Template = "templates/" + hexMD5(fmt.Sprint(w.Outputs))
	}
	doc := w.document(t, command)
	w.CommandLine = sqlText(command)
	return w, doc
}

// describe finds a staged file.
func (c *call) describe(in *Input) {
	content, err := c.p.read("download", in.Name)
	if err != nil || strings.ContainsAny(in.Name, "/") {
		root := c.p.config.Path + "/download/"
		at := root + fanout(in.Name) + "/" + in.Name
		c.toolFailed("md5_file: can't open %s\nmd5_file: No such file or directory\nprocess_input_template: md5_file fopen() failed\nprocess_input_template(): fopen() failed\ncreate_work() failed: -108\ncopy %s%s to %s",
			at, root, in.Name, at)
	}
	in.URL = c.p.config.URL + "download/" + fanout(in.Name) + "/" + in.Name
	in.MD5, in.Size = hexMD5(string(content)), int64(len(content))
}

// document is the job's XML, as the table holds it.
func (w *Workunit) document(t *inputTemplate, command string) string {
	var b strings.Builder
	for i, in := range w.Inputs {
		b.WriteString("<file_info>\n")
		for _, flag := range t.files[i].flags {
			b.WriteString("<" + flag + "/>\n")
		}
		fmt.Fprintf(&b, "    <name>%s</name>\n    <url>%s</url>\n    <md5_cksum>%s</md5_cksum>\n    <nbytes>%d</nbytes>\n</file_info>\n", in.Name, in.URL, in.MD5, in.Size)
	}
	fmt.Fprintf(&b, "<workunit>\n<command_line>\n%s\n</command_line>\n", command)
	for _, in := range w.Inputs {
		fmt.Fprintf(&b, "<file_ref>\n    <file_name>%s</file_name>\n    <open_name>%s</open_name>\n", in.Name, in.OpenName)
		if in.CopyFile {
			b.WriteString("    <copy_file/>\n")
		}
		b.WriteString("</file_ref>\n")
	}
	return b.String() + "</workunit>"
}

// row is the job's part of the insert statement, whose texts are not escaped.
func (w *Workunit) row(doc string) string {
	l := w.Limits
	return fmt.Sprintf("(0, %d, %d, '%s', '%s', %d, %f, %f, %f, %f, 0, 0, 0.000000, %d, %d, 0, 0, 0, 0, 0.000000, %d, %d, %d, %d, %d, '%s', %d, NOW(), 0.000000, 0, 0, 0, -1, '', %d )",
		w.CreateTime, w.App, w.Name, doc, w.Batch, l.FpopsEst, l.FpopsBound, l.MemoryBound, l.DiskBound, w.CreateTime, l.DelayBound,
		l.MinQuorum, l.TargetResults, l.MaxErrors, l.MaxTotal, l.MaxSuccess, w.Template, w.Priority, w.VersionNum)
}

// insertWork makes all rows or none. A row that failed has used its id up, unless
// the statement could not be read at all.
func (c *call) insertWork(made []*Workunit, docs, rows []string) {
	statement := "insert into workunit values " + strings.Join(rows, ",")
	broken := func(problem string) {
		c.toolFailed("Database error: %s\nquery=%s\nwu.insert_batch() failed: 1\nMySQL error: %s", problem, statement, problem)
	}
	for i, w := range made {
		if near := syntaxError(w, docs[i], statement[strings.Index(statement, rows[i]):]); near != "" {
			broken("You have an error in your SQL syntax; check the manual that corresponds to your MariaDB server version for the right syntax to use near '" + near + "' at line 1")
		}
	}
	names := map[string]bool{}
	for _, w := range made {
		w.ID = c.p.id("workunit") // which is gone even if the statement fails
	}
	for _, w := range made {
		if names[w.Name] || c.p.wuNames[w.Name] != nil {
			broken(fmt.Sprintf("Duplicate entry '%s' for key 'name'", w.Name))
		}
		names[w.Name] = true
	}
}

// syntaxError says near what a row's statement breaks: after the first quote in one
// of its texts. A pair of quotes is a quote.
func syntaxError(w *Workunit, doc, rest string) string {
	name := strings.Index(rest, "'") + 1
	for _, text := range []struct {
		at int
		s  string
	}{{name, w.Name}, {name + len(w.Name) + len("', '"), doc}} {
		i := strings.Index(strings.ReplaceAll(text.s, "''", "__"), "'")
		if i < 0 {
			continue
		}
		near := []rune(strings.TrimLeft(rest[text.at+i+1:], " "))
		if len(near) > 80 {
			return string(near[:77]) + "..."
		}
		return string(near)
	}
	return ""
}

// sqlText is what becomes of a text in a statement: backslashes are escapes there.
func sqlText(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case '0':
				b.WriteByte(0)
			default:
				b.WriteByte(s[i])
			}
			continue
		}
		b.WriteByte(s[i])
	}
	return strings.ReplaceAll(b.String(), "''", "'")
}
