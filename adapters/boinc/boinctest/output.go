package boinctest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// attach sends a file as the project's scripts do.
func attach(w http.ResponseWriter, name string, content []byte) {
	h := w.Header()
	h.Set("Content-Description", "File Transfer")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", "attachment; filename="+name)
	h.Set("Content-Transfer-Encoding", "binary")
	h.Set("Expires", "0")
	h.Set("Cache-Control", "must-revalidate, post-check=0, pre-check=0")
	h.Set("Pragma", "public")
	h.Set("Content-Length", itoa(int64(len(content))))
	_, _ = w.Write(content)
}

// complain is how get_output.php fails: with status 200.
func complain(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	_, _ = fmt.Fprintf(w, "ERROR: "+format, args...)
}

// page is a page for people. The project's theme around it is left out.
func (p *Project) page(w http.ResponseWriter, user *User, message string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache, must-revalidate, post-check=0, pre-check=0")
	nav := fmt.Sprintf(`<a href="%slogin_form.php">Login</a>`, p.config.URL)
	if user != nil {
		nav = fmt.Sprintf(`<a href=%shome.php>%s</a>`, p.config.URL, escapeHTML(user.Name))
	}
	_, _ = fmt.Fprintf(w, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<title>Unable to handle request</title>\n</head>\n<body>\n%s\n    <h2>Unable to handle request</h2>\n%s<br>\n</body>\n</html>\n", nav, message)
}

// parameter gives a query parameter, or shows the page that it is missing.
func (p *Project) parameters(w http.ResponseWriter, q url.Values, names ...string) bool {
	for _, n := range names {
		if _, ok := q[n]; !ok {
			p.page(w, nil, "missing or bad parameter: "+n)
			return false
		}
	}
	return true
}

func (p *Project) owner(batch int64) *User {
	b := p.batches[batch]
	if b == nil {
		return nil
	}
	return p.user(func(u *User) bool { return u.ID == b.User })
}

// getOutput is get_output.php.
func (p *Project) getOutput(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	if !p.parameters(w, q, "auth_str") {
		return
	}
	auth := q.Get("auth_str")
	may := func(batch int64, key string) bool {
		u := p.owner(batch)
		return u != nil && auth == hexMD5(u.Authenticator+key)
	}
	switch q.Get("cmd") {
	case "result_file":
		if !p.parameters(w, q, "result_name", "file_num") {
			return
		}
		res := p.byName[q.Get("result_name")]
		if res == nil {
			complain(w, "no result %s", q.Get("result_name"))
			return
		}
		if !may(p.wus[res.Workunit].Batch, res.Name) {
			complain(w, "bad authenticator")
			return
		}
		p.sendOutput(w, res, q.Get("file_num"))
	case "workunit_file":
		if !p.parameters(w, q, "wu_name", "file_num") {
			return
		}
		wu := p.wuNames[q.Get("wu_name")]
		if wu == nil {
			complain(w, "no workunit %s", q.Get("wu_name"))
			return
		}
		if u := p.owner(wu.Batch); u == nil || u.Authenticator != auth {
			complain(w, "bad authenticator")
			return
		}
		res := p.results[wu.Canonical]
		if res == nil {
			complain(w, "no canonical result for wu %s", wu.Name)
			return
		}
		p.sendOutput(w, res, q.Get("file_num"))
	case "workunit_files":
		if !p.parameters(w, q, "wu_id") {
			return
		}
		wu := p.wus[int64(phpNumber(q.Get("wu_id")))]
		switch {
		case wu == nil:
			complain(w, "no workunit %s", q.Get("wu_id"))
		case !may(wu.Batch, q.Get("wu_id")):
			complain(w, "bad auth str")
		default:
			p.zip(w, fmt.Sprintf("boinc_wu_%s_%s.zip", wu.Name, hexMD5(wu.Name)[:6]), []*Workunit{wu})
		}
	case "batch_files":
		if !p.parameters(w, q, "batch_id") {
			return
		}
		b := p.batches[int64(phpNumber(q.Get("batch_id")))]
		switch {
		case b == nil:
			complain(w, "no batch %s", q.Get("batch_id"))
		case !may(b.ID, q.Get("batch_id")):
			complain(w, "bad auth str")
		default:
			p.zip(w, "boinc_batch_"+hexMD5(b.Name)[:6]+".zip", p.ofBatch[b.ID])
		}
	default:
		p.page(w, nil, "unrecognized command")
	}
}

// sendOutput sends one file of an instance: of those that its client reported, by
// place among them.
func (p *Project) sendOutput(w http.ResponseWriter, r *Result, number string) {
	n := int(phpNumber(number))
	if n < 0 || n >= len(r.Files) {
		complain(w, "bad file num: %d > %d", n, len(r.Files))
		return
	}
	f := r.Files[n]
	content, err := p.read("upload", f.Name)
	if err != nil {
		complain(w, "no such file %s", p.shown("upload", f.Name))
		return
	}
	attach(w, f.Name, content)
}

// zip packs the outputs of good instances; with none it sends nothing at all.
func (p *Project) zip(w http.ResponseWriter, name string, jobs []*Workunit) {
	files := map[string][]byte{}
	var order []string
	for _, wu := range jobs {
		r := p.results[wu.Canonical]
		if r == nil {
			continue
		}
		for _, f := range r.Files {
			if content, err := p.read("upload", f.Name); err == nil {
				files[f.Name], order = content, append(order, f.Name)
			}
		}
	}
	attach(w, name, zipped(files, order, p.config.Now()))
}

func zipped(files map[string][]byte, order []string, at time.Time) []byte {
	if len(order) == 0 {
		return nil
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range order {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at}
		h.SetMode(0o644)
		f, err := z.CreateHeader(h)
		if err == nil {
			_, _ = f.Write(files[name])
		}
	}
	_ = z.Close() // into memory
	return b.Bytes()
}

// getOutput2 is get_output2.php, of newer servers.
func (p *Project) getOutput2(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	if q.Get("cmd") != "file" {
		p.page(w, nil, "bad command")
		return
	}
	if !p.parameters(w, q, "result_id", "file_num", "auth") {
		return
	}
	res := p.results[int64(phpNumber(q.Get("result_id")))]
	if res == nil {
		p.page(w, nil, "no result")
		return
	}
	wu := p.wus[res.Workunit]
	if u := p.owner(wu.Batch); u == nil || u.Authenticator != q.Get("auth") {
		p.page(w, nil, "bad authenticator")
		return
	}
	n := int(phpNumber(q.Get("file_num")))
	i := slices.IndexFunc(res.Files, func(f OutputFile) bool { return f.Index == n })
	if i < 0 {
		p.page(w, nil, "no such file")
		return
	}
	content, err := p.read("upload", res.Files[i].Name)
	if err != nil {
		p.page(w, nil, "no such file")
		return
	}
	attach(w, res.Name+"__"+wu.Outputs[n].OpenName, content)
}

// getOutput3 is get_output3.php: what an assimilator collected, for who is logged in.
func (p *Project) getOutput3(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cookie, err := r.Cookie("auth")
	var user *User
	if err == nil {
		user = p.user(func(u *User) bool { return u.Authenticator == cookie.Value })
	}
	if user == nil {
		w.Header().Set("Location", p.config.URL+"login_form.php?next_url="+url.QueryEscape("get_output3.php?"+r.URL.RawQuery))
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.WriteHeader(http.StatusFound)
		return
	}
	q := r.URL.Query()
	switch q.Get("action") {
	case "get_file":
		res := p.results[int64(phpNumber(q.Get("result_id")))]
		if res == nil {
			p.page(w, user, "no such result")
			return
		}
		wu := p.wus[res.Workunit]
		if b := p.batches[wu.Batch]; b == nil || b.User != user.ID {
			p.page(w, user, "not owner")
			return
		}
		n := int(phpNumber(q.Get("index")))
		if n < 0 || n >= len(wu.Outputs) {
			p.page(w, user, "no such file")
			return
		}
		name := wu.Name + "__file_" + wu.Outputs[n].OpenName
		content, err := os.ReadFile(filepath.Join(p.resultsDir(wu.Batch), name))
		if err != nil {
			p.page(w, user, "no such file")
			return
		}
		if q.Get("download") == "" {
			w.Header().Set("Content-Type", "text/html; charset=UTF-8")
			_, _ = fmt.Fprintf(w, "<pre>\n%s</pre>\n", content)
			return
		}
		attach(w, name, content)
	case "get_batch_zip", "get_batch_tar":
		b := p.batches[int64(phpNumber(q.Get("batch_id")))]
		if b == nil {
			p.page(w, user, "no such batch")
			return
		}
		if b.User != user.ID {
			p.page(w, user, "not owner")
			return
		}
		entries, err := os.ReadDir(p.resultsDir(b.ID))
		if err != nil {
			p.page(w, user, "no batch dir")
			return
		}
		files := map[string][]byte{}
		var order []string
		for _, e := range entries {
			if content, err := os.ReadFile(filepath.Join(p.resultsDir(b.ID), e.Name())); err == nil {
				files[e.Name()], order = content, append(order, e.Name())
			}
		}
		if strings.HasSuffix(q.Get("action"), "zip") {
			attach(w, fmt.Sprintf("batch_%d.zip", b.ID), zipped(files, order, p.config.Now()))
		} else {
			attach(w, fmt.Sprintf("batch_%d.tar", b.ID), tarred(files, order, p.config.Now()))
		}
	default:
		p.page(w, user, "bad action")
	}
}

// tarred packs files as tar does, in records of 20 blocks.
func tarred(files map[string][]byte, order []string, at time.Time) []byte {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, name := range order {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), ModTime: at, Uname: "boincadm", Gname: "boincadm", Uid: 1001, Gid: 1001, Format: tar.FormatUSTAR}
		if t.WriteHeader(h) == nil {
			_, _ = t.Write(files[name])
		}
	}
	_ = t.Close() // into memory
	if rest := b.Len() % 10240; rest > 0 {
		b.Write(make([]byte, 10240-rest))
	}
	return b.Bytes()
}

// lookupAccount is lookup_account.php. A real server waits for 5 s before it says that
// a password is wrong.
func (p *Project) lookupAccount(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	q := r.URL.Query()
	u := p.user(func(u *User) bool { return strings.EqualFold(u.Email, q.Get("email_addr")) })
	number, message := -136, "no account found"
	if u != nil {
		number, message = -206, "bad password"
	}
	if u == nil || u.PasswdHash != q.Get("passwd_hash") {
		_, _ = fmt.Fprintf(w, "%s<error>\n    <error_num>%d</error_num>\n    <error_msg>%s</error_msg>\n</error>\n", xmlHead, number, message)
		return
	}
	_, _ = fmt.Fprintf(w, "%s<account_out>\n<authenticator>%s</authenticator>\n</account_out>\n", xmlHead, u.Authenticator)
}

// projectConfig is get_project_config.php.
func (p *Project) projectConfig(w http.ResponseWriter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	flag := map[bool]int{true: 1}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	_, _ = fmt.Fprintf(w, "%s<project_config>\n    <name>%s</name>\n    <master_url>%s</master_url>\n    <web_rpc_url_base>%s</web_rpc_url_base>\n<server_version>1.1.0</server_version>\n    <web_stopped>%d</web_stopped>\n    <min_passwd_length>6</min_passwd_length>\n    <sched_stopped>%d</sched_stopped>\n    <platforms>\n",
		xmlHead, p.config.Name, p.config.URL, p.config.URL, flag[p.config.WebStopped], flag[p.config.SchedStopped])
	for _, pl := range p.config.Platforms {
		_, _ = fmt.Fprintf(w, "            <platform>\n                <platform_name>%s</platform_name>\n                <user_friendly_name>%s</user_friendly_name>\n            </platform>\n", pl.Name, pl.Friendly)
	}
	_, _ = fmt.Fprint(w, "    </platforms>\n</project_config>")
}
