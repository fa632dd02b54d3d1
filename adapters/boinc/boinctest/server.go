package boinctest

import (
	"bytes"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

const xmlHead = `<?xml version="1.0" encoding="ISO-8859-1" ?>` + "\n"

// call is one request of the submission interface being answered.
type call struct {
	p      *Project
	out    bytes.Buffer
	status int
	op     string
	r      *node
	user   *User
	files  []upload
	fault  *Fault
}

// upload is a file part of a form.
type upload struct {
	name    string
	content []byte
	size    int64
}

// exit ends a script from anywhere within.
type exit struct{}

func (c *call) print(format string, args ...any) { fmt.Fprintf(&c.out, format, args...) }

// noise prints a message of PHP, where the server shows them.
func (c *call) noise(level, message, file string, line int) {
	if c.p.config.DisplayErrors {
		c.print("<br />\n<b>%s</b>:  %s in <b>%s/html/%s</b> on line <b>%d</b><br />\n", level, message, c.p.config.Path, file, line)
	}
}

// log is what each script does when it begins, ends and between: writing the log
// uses a function that PHP 8 deprecates.
func (c *call) log() {
	c.noise("Deprecated", "Function strftime() is deprecated", "inc/submit_util.inc", 53)
}

func (c *call) start() { c.print("<%s>\n", c.op) }

func (c *call) end() { c.print("        </%s>\n    ", c.op) }

// fail prints an error and ends the script.
func (c *call) fail(number int, message string) {
	c.print("<error>\n    <error_num>%d</error_num>\n    <error_msg>%s</error_msg>\n</error>\n", number, message)
	if c.op != "" {
		c.print("</%s>\n", c.op)
	}
	panic(exit{})
}

// fatal is an uncaught exception of PHP: the script ends where it is.
func (c *call) fatal(message string, frames ...string) {
	if !c.p.config.DisplayErrors {
		c.status = http.StatusInternalServerError
		panic(exit{})
	}
	root := c.p.config.Path + "/html/"
	c.print("<br />\n<b>Fatal error</b>:  Uncaught mysqli_sql_exception: %s in %sinc/db_conn.inc:67\nStack trace:\n", message, root)
	all := append([]string{"inc/db_conn.inc(67): mysqli-&gt;query()", "inc/db_conn.inc(119): DbConn-&gt;do_query()"}, frames...)
	for i, f := range all {
		c.print("#%d %s%s\n", i, root, f)
	}
	c.print("#%d {main}\n  thrown in <b>%sinc/db_conn.inc</b> on line <b>67</b><br />\n", len(all), root)
	panic(exit{})
}

// run answers by f and catches the script's exit.
func (c *call) run(f func()) {
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(exit); !ok {
				panic(e)
			}
		}
	}()
	f()
}

// ServeHTTP answers what stands below the master URL.
func (p *Project) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.faults.befall(w, r, p.route)
}

func (p *Project) route(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "Apache/2.4 (Debian)")
	script := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	switch {
	case strings.Contains(r.URL.Path, "/download/"):
		p.download(w, r)
	case script == "submit_rpc_handler.php":
		p.rpc(w, r, func(c *call) { c.submitHandler() })
	case script == "job_file.php":
		p.rpc(w, r, func(c *call) { c.fileHandler() })
	case script == "get_output.php":
		p.getOutput(w, r)
	case script == "get_output2.php":
		p.getOutput2(w, r)
	case script == "get_output3.php":
		p.getOutput3(w, r)
	case script == "lookup_account.php":
		p.lookupAccount(w, r)
	case script == "get_project_config.php":
		p.projectConfig(w)
	case script == "hosts_contact":
		p.serveContact(w, r)
	default:
		http.NotFound(w, r)
	}
}

// rpc reads the form, answers, and commits what was done.
func (p *Project) rpc(w http.ResponseWriter, r *http.Request, handle func(*call)) {
	request, files := p.form(r)
	p.mu.Lock()
	c := &call{p: p, status: http.StatusOK, files: files, fault: faultOf(r)}
	c.print(xmlHead)
	c.run(func() {
		if p.config.WebStopped {
			c.fail(-183, "project down for maintenance")
		}
		if c.fault.NoDatabase {
			c.fail(-138, "Can't connect to database")
		}
		root, err := parseXML(request)
		if err == nil && len(root.children) == 0 {
			err = fmt.Errorf("an element without children counts as nothing")
		}
		if err != nil {
			c.log()
			c.r = nil
		} else {
			c.r = root
		}
		if c.r == nil {
			c.badRequest(request, r)
		}
		c.log()
		handle(c)
		c.log()
	})
	p.commit()
	p.stir()
	p.mu.Unlock()
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.Header().Set("Content-Length", strconv.Itoa(c.out.Len()))
	if c.status != http.StatusOK {
		w.Header().Set("Connection", "close")
	}
	w.WriteHeader(c.status)
	_, _ = w.Write(c.out.Bytes())
}

// badRequest says that the request is no XML; job_file.php says where it saw that.
func (c *call) badRequest(request string, r *http.Request) {
	message := "can't parse request message: " + escapeHTML(request)
	if strings.HasSuffix(r.URL.Path, "job_file.php") {
		c.print("<error>\n    <error_num>-1</error_num>\n    <error_msg>%s</error_msg>\n    <file>%s/html/user/job_file.php</file>\n    <line>302</line>\n</error>\n",
			message, c.p.config.Path)
		panic(exit{})
	}
	c.fail(-1, message)
}

// form gives the field "request" and the files of a form, as PHP fills its arrays:
// a form over post_max_size is dropped as a whole.
func (p *Project) form(r *http.Request) (string, []upload) {
	if r.Method != http.MethodPost || r.ContentLength > p.config.PostMax {
		return "", nil
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	body := http.MaxBytesReader(nil, r.Body, p.config.PostMax)
	switch kind {
	case "application/x-www-form-urlencoded":
		r.Body = body
		if err := r.ParseForm(); err != nil {
			return "", nil
		}
		return r.PostForm.Get("request"), nil
	case "multipart/form-data":
		r.Body = body
		parts, err := r.MultipartReader()
		if err != nil {
			return "", nil
		}
		request, files := "", []upload(nil)
		for {
			part, err := parts.NextPart()
			if err != nil {
				return request, files
			}
			var b bytes.Buffer
			if part.FileName() == "" {
				_, _ = b.ReadFrom(part)
				if part.FormName() == "request" {
					request = b.String()
				}
				continue
			}
			n, _ := b.ReadFrom(part)
			files = append(files, upload{name: part.FileName(), content: b.Bytes(), size: n})
		}
	}
	return "", nil
}
