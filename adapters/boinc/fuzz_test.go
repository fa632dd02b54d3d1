package boinc

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/testenv"
)

// FuzzReply: whatever a project answers, reading it ends, in bounds.
func FuzzReply(f *testing.F) {
	for _, s := range []string{
		"", "<", "<a", "<query_batches>", "<query_batches></query_batches>", "<abort_jobs>\n<aborted x>\n<success>1</success></abort_jobs>",
		"<query_batches><batch><name>R&D <x></name><id>1</id></batch></query_batches>", "<error><error_num>-1</error_num><error_msg>no</error_msg></error>",
		"<query_batch><job><error>cancelled</error><error>x</error></job></query_batch>", "<query_batches>" + strings.Repeat("<batch>", 50) + "</query_batches>",
		"<br />\n<b>Deprecated</b>: x in <b>y</b> on line <b>1</b><br />\n<query_batches></query_batches>", "<br />\n<b>Fatal error</b>: x",
		"<query_batches>" + strings.Repeat("<a><b><c>", 100) + "</query_batches>", "<query_batches><![CDATA[<b>Fatal error</b>]]></query_batches>\xff\xfe",
	} {
		f.Add([]byte(s), "query_batches")
	}
	if dir := recordings(); dir != "" {
		for _, g := range []string{"lifecycle-A", "abort", "errors", "php-messages", "names"} {
			files, _ := filepath.Glob(filepath.Join(dir, g, "*.response.xml"))
			for _, name := range files {
				if data, err := os.ReadFile(name); err == nil {
					f.Add(data, "query_batch")
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, operation string) {
		if !isName(operation) {
			return
		}
		root, err := parseReply(body, operation)
		if err != nil {
			return
		}
		nodes := 0
		var walk func(e *element, depth int)
		walk = func(e *element, depth int) {
			if nodes++; depth > maxDepth+1 || nodes > len(body)+1 {
				t.Fatalf("%d elements, %d deep, of %d bytes", nodes, depth, len(body))
			}
			for _, c := range e.children {
				walk(c, depth+1)
			}
		}
		walk(root, 0)
		readBatch(root)
		_ = errorOf(operation, root)
	})
}

func recordings() string {
	dir := filepath.Join("..", "..", "..", "shared", "samples", "boinc")
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// FuzzStatus: a status file is a stranger's.
func FuzzStatus(f *testing.F) {
	for _, s := range []string{"portolan=1\nexit=3\nend\n", "portolan=1\nstarted=1\nended=2\nsignal=9\nend\n", "portolan=1\nnotrun=path\nend\n", "portolan=1\nexit=3\nsignal=9\nend\n", "exit=999\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, ok := readStatus(data)
		if ok && (e.exit > 255 || e.signal > 127 || e.exit < 0 && e.signal == 0 && e.limit == "" && e.notRun == "") {
			t.Errorf("%+v of %q", e, data)
		}
		r := jobRecord{}
		_ = r.whyNot(e.notRun) + r.limitSentence(e.limit)
	})
}

// FuzzHandle: what is read is written back the same.
func FuzzHandle(f *testing.F) {
	f.Add([]byte("boinc/1 7 portolan_a-b a-b"))
	f.Add([]byte("boinc/1 -7 portolan_a-b a-b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseHandle(data)
		if err != nil {
			return
		}
		again := fmt.Sprintf("%s %d %s %s", handlePrefix, p.batch, p.name, p.tag)
		if q, err := parseHandle(adapters.Handle(again)); err != nil || q != p {
			t.Errorf("%q is read as %+v and %+v (%v)", data, p, q, err)
		}
	})
}

// FuzzArchive: archives come from strangers' hosts through the project.
func FuzzArchive(f *testing.F) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, n := range []string{"portolan_x_0_r5_0", "portolan_x_0_r5_2", "../../etc/passwd", "portolan_x__file_portolan.out"} {
		if m, err := w.Create(n); err == nil {
			_, _ = m.Write([]byte("portolan=1\nexit=0\nend\n"))
		}
	}
	_ = w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		a := &Adapter{}
		j := &job{record: &jobRecord{Tag: "x"}}
		for _, name := range []namer{a.kept(map[string]*job{"portolan_x": j}), collected(map[string]*job{"portolan_x": j})} {
			found, err := members(data, name, map[*job]bool{j: true}, 100)
			if err != nil {
				continue
			}
			for place, content := range found[j] {
				if place < 0 || place >= len(outputs) || len(content) > 100+maxStatus {
					t.Errorf("%d bytes at the place %d", len(content), place)
				}
			}
		}
	})
}

// TestRecordedReplies: every recorded reply is read, and says what it says.
func TestRecordedReplies(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "samples", "boinc")
	read := func(name, operation string) (*element, error) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return parseReply(data, operation)
	}
	r, err := read("php-messages/326-query_batch-php-messages.response.xml", "query_batch")
	if b := readBatch(r); err != nil || b.id != 270 || len(b.list) != 1 || b.list[0].name != "noisy_0" || b.list[0].status != "queued" {
		t.Errorf("a reply with PHP's messages is read as %+v, %v", readBatch(r), err)
	}
	if _, err := read("php-messages/327-query_completed_job-php-messages.response.xml", "query_completed_job"); !errors.Is(err, errFatal) {
		t.Errorf("a fatal error is read with %v", err)
	}
	if _, err := read("lifecycle-A/018-query_completed_job-too-early.response.xml", "query_completed_job"); !errors.Is(err, errCut) {
		t.Errorf("a document that is cut off is read with %v", err)
	}
	if r, err := read("abort/276-abort_jobs.response.xml", "abort_jobs"); err != nil || r.str("success") != "1" {
		t.Errorf("the ill-formed reply of abort_jobs is read as %+v, %v", r, err)
	}
	if r, err := read("names/091-query_batch-name-with-markup.response.xml", "query_batch"); err != nil || readBatch(r).name != "R&D <x>" || readBatch(r).id != 14 {
		t.Errorf("a name with markup is read as %+v, %v", readBatch(r), err)
	}
	if r, err := read("names/093-query_batch-name-utf8.response.xml", "query_batch"); err != nil || readBatch(r).name != "Größe" {
		t.Errorf("UTF-8 under an ISO-8859-1 declaration is read as %+v, %v", readBatch(r), err)
	}
	r, err = read("abort/281-abort_jobs-query_batch-later.response.xml", "query_batch")
	if b := readBatch(r); err != nil || len(b.list) != 3 || len(b.list[0].errors) != 2 || b.list[0].exits[0] != 202 || b.list[1].canonical != 40 {
		t.Errorf("jobs in detail are read as %+v, %v", b, err)
	}
	r, err = read("errors/084-submit_batch-one-duplicate-of-two.response.xml", "submit_batch")
	e := &reported{}
	ok := errors.As(errorOf("submit_batch", r), &e)
	if err != nil || !ok || duplicate.FindStringSubmatch(e.message) == nil || duplicate.FindStringSubmatch(e.message)[1] != "dup_0" {
		t.Errorf("a message with a whole statement is read as %v, %v", e, err)
	}
	r, err = read("misc/320-get_project_config.response.xml", "project_config")
	if err != nil || r.str("name") != "Gateway Test" || len(r.child("platforms").all("platform")) != 1 {
		t.Errorf("the project is read as %+v, %v", r, err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "INDEX.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	readable := 0
	for line := range strings.Lines(string(index)) {
		f := strings.Split(line, "\t")
		if f[3] != "POST" || f[5] != "200" {
			continue
		}
		if _, err := read(f[0]+".response.xml", f[2]); err != nil && !errors.Is(err, errFatal) {
			t.Errorf("%s: %v", f[0], err)
		}
		readable++
	}
	if readable < 100 {
		t.Errorf("only %d replies were read", readable)
	}
}

// TestScriptQuotes: any text of a job arrives at its program as it is, through a real
// shell.
func TestScriptQuotes(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.StringMatching(`[^\x00]{0,40}`)
		args := rapid.SliceOfN(text, 0, 5).Draw(r, "arguments")
		value := text.Draw(r, "value")
		s := script{
			executable: &word{text: "/bin/sh"}, maxOutput: 1 << 20,
			environment: map[string]word{"PATH": {text: "/bin:/usr/bin"}, "V": {text: value}},
		}
		s.arguments = []word{{text: "-c"}, {text: `printf '%s\0' "$V" "$@"`}, {text: "sh"}}
		want := value + "\x00"
		for _, a := range args {
			s.arguments = append(s.arguments, word{text: a})
			want += a + "\x00"
		}
		dir, err := os.MkdirTemp("", "script-") //nolint:usetesting // one for each check of the property
		if err != nil {
			r.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := os.WriteFile(filepath.Join(dir, scriptFile), []byte(s.String()), 0o600); err != nil {
			r.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "./"+scriptFile)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			r.Fatalf("%v: %s", err, out)
		}
		got, err := os.ReadFile(filepath.Join(dir, outFile))
		if err != nil || string(got) != want {
			r.Fatalf("the program saw %q (%v), want %q", got, err, want)
		}
		status, err := os.ReadFile(filepath.Join(dir, statusFile))
		if e, ok := readStatus(status); err != nil || !ok || e.exit != 0 {
			r.Fatalf("the status is %q (%v)", status, err)
		}
	})
}

// TestSettings: what is wrong is refused by its name.
func TestSettings(t *testing.T) {
	good := func() Settings {
		s := Settings{URL: "https://boinc.example.org/gw/", AuthenticatorFile: "/x", Wrapper: "run"}
		s.EnsureDefaults()
		return s
	}
	if s := good(); s.Validate() != nil {
		t.Fatal(s.Validate())
	}
	for setting, spoil := range map[string]func(*Settings){
		"url":               func(s *Settings) { s.URL = "http://boinc.example.org/gw/" },
		"url: the":          func(s *Settings) { s.URL = "" },
		"url: give":         func(s *Settings) { s.URL = "https://a:b@boinc.example.org/" },
		"authenticatorFile": func(s *Settings) { s.AuthenticatorFile = "" },
		"wrapper":           func(s *Settings) { s.Wrapper = "" },
		"prefix":            func(s *Settings) { s.Prefix = "a b" },
		"requestsPerSecond": func(s *Settings) { s.RequestsPerSecond = -1 },
		"maxBatch":          func(s *Settings) { s.MaxBatch = 100000 },
		"applications":      func(s *Settings) { s.Applications = []Application{{App: "x"}} },
	} {
		s := good()
		spoil(&s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("%s: Validate gives %v", setting, err)
		}
	}
	s := good()
	s.URL = "http://127.0.0.1:80/gw/"
	if err := s.Validate(); err != nil {
		t.Errorf("http on this machine: %v", err)
	}
	key := filepath.Join(t.TempDir(), "key")
	for content, mode := range map[string]os.FileMode{"0123456789abcdef0123456789abcdef\n": 0o644, "short": 0o600} {
		_ = os.Remove(key)
		if err := os.WriteFile(key, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if _, err := readSecret(key); err == nil || strings.Contains(err.Error(), strings.TrimSpace(content)) {
			t.Errorf("a key file with %q and mode %o gives %v", content, mode, err)
		}
	}
}
