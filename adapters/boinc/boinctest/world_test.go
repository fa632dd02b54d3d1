package boinctest

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The project of the recordings, and what its volunteers and staff did between
// them. Times, ids and the random parts of file names are seeded with those that the
// real server had; what the answers say comes from the model.

const (
	scientistKey = "0123456789abcdef0123456789abcdef"
	otherKey     = "11111111111111111111111111111111"
	strangerKey  = "22222222222222222222222222222222"
	limitedKey   = "33333333333333333333333333333333"
	volunteerKey = "44444444444444444444444444444444"
	password     = "correct horse"
)

type world struct {
	t    *testing.T
	p    *Project
	now  time.Time
	seen map[int]bool // numbers of exchanges that are recorded here
}

func newWorld(t *testing.T, samples string) *world {
	w := &world{t: t, seen: map[int]bool{}}
	// The staff's files, as get_templates shows them.
	shown, err := os.ReadFile(filepath.Join(samples, "lifecycle-A/008-get_templates.response.xml"))
	if err != nil {
		t.Fatal(err)
	}
	_, templates, _ := strings.Cut(string(shown), "<templates>\n")
	in, out, _ := strings.Cut(templates, "\n<output_template>")
	out, _, _ = strings.Cut("<output_template>"+out, "\n</templates>")
	bare := "<input_template>\n<file_info>\n<no_delete/>\n</file_info>\n<workunit>\n<file_ref>\n<open_name>job.sh</open_name>\n<copy_file/>\n</file_ref>\n</workunit>\n</input_template>\n"
	three := strings.Replace(out, "  <result>", "  <file_info>\n    <name><OUTFILE_2/></name>\n  </file_info>\n  <result>\n", 1)
	three = strings.Replace(three, "  </result>", "    <file_ref>\n<file_name><OUTFILE_2/></file_name>\n<open_name>exitcode</open_name>\n<copy_file/>\n</file_ref>\n  </result>", 1)
	linux := []AppVersion{{Number: 100, Platform: "x86_64-pc-linux-gnu"}}
	shell := Program{Kind: "shell"}
	random := randomParts(t, samples)
	config := Config{
		Name: "Gateway Test", URL: "http://boinc.example.org/gw/", Path: "/srv/boinc/projects/gw",
		Users: []User{
			{
				ID: 1, Name: "scientist", Email: "scientist@example.org", PasswdHash: hexMD5(password + "scientist@example.org"), Authenticator: scientistKey,
				Submit: true, SubmitAll: true, AvgCredit: 2e10 * 200 / 1e9 / 237746.23339781,
			},
			{ID: 2, Name: "other", Authenticator: otherKey, Submit: true, SubmitAll: true},
			{ID: 3, Name: "stranger", Authenticator: strangerKey},
			{ID: 4, Name: "volunteer", Authenticator: volunteerKey},
			{ID: 5, Name: "limited", Authenticator: limitedKey, Submit: true, Apps: []string{"shell"}, MaxJobs: 2},
		},
		Apps: []App{
			{ID: 1, Name: "shell", InputTemplate: in, OutputTemplate: out, Versions: linux, Program: shell},
			{ID: 2, Name: "shellrc", InputTemplate: in, OutputTemplate: three, Versions: linux, Program: Program{Kind: "capture"}},
			{ID: 3, Name: "collect", InputTemplate: in, OutputTemplate: out, Versions: linux, Collect: true, Program: shell},
			{ID: 4, Name: "multi", Versions: linux, Program: shell},
			{ID: 5, Name: "bare", InputTemplate: bare, OutputTemplate: out, Versions: linux, Program: shell},
			{ID: 6, Name: "nover", InputTemplate: in, OutputTemplate: out, Program: shell},
		},
		Platforms: []Platform{{Name: "x86_64-pc-linux-gnu", Friendly: "Linux running on an AMD x86_64 or Intel EM64T CPU"}},
		Now:       func() time.Time { return w.now },
		Random:    func(result string) int64 { return random[result] },
		Fetch: func(u string) ([]byte, error) {
			if u == "http://data.example.org/semi.sh" {
				return []byte("echo fetched by the server\n"), nil
			}
			return nil, fmt.Errorf("not found")
		},
	}
	p, err := Open(t.TempDir(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	w.p = p
	return w
}

func (w *world) at(second int64) { w.now = time.Unix(second, 0) }

// post sends a document, as exchanges that are not recorded did.
func (w *world) post(document string) string {
	r := httptest.NewRequest("POST", "/gw/submit_rpc_handler.php", strings.NewReader("request="+url.QueryEscape(document)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	w.p.ServeHTTP(rec, r)
	return rec.Body.String()
}

// submit makes a batch of jobs with an inline script.
func (w *world) submit(key, app, batch, script string, jobs ...string) string {
	doc := "<submit_batch><authenticator>" + key + "</authenticator><batch><app_name>" + app + "</app_name><batch_name>" + batch + "</batch_name>"
	for _, j := range jobs {
		doc += "<job><name>" + j + "</name><input_file><mode>inline</mode><source>" + escapeHTML(script) + "</source></input_file></job>"
	}
	return w.post(doc + "</batch></submit_batch>")
}

func (w *world) query(batch int) {
	w.post(fmt.Sprintf("<query_batch><authenticator>%s</authenticator><batch_id>%d</batch_id></query_batch>", scientistKey, batch))
}

func (w *world) retire(batch int) {
	w.post(fmt.Sprintf("<retire_batch><authenticator>%s</authenticator><batch_id>%d</batch_id></retire_batch>", scientistKey, batch))
}

func (w *world) send(results ...string) {
	w.t.Helper()
	if err := w.p.Send(1, results...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) report(r Report) {
	w.t.Helper()
	if err := w.p.Report(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) fails(result string, exit int, files map[int][]byte) {
	w.t.Helper()
	w.send(result)
	w.report(Report{Result: result, ExitStatus: exit, ClientState: ClientComputeError, Files: files})
}

func files(content ...string) map[int][]byte {
	m := map[int][]byte{}
	for i, c := range content {
		m[i] = []byte(c)
	}
	return m
}

func clock(s string) time.Time {
	t, err := time.Parse("15:04:05", s)
	if err != nil {
		panic(err)
	}
	return time.Date(2026, 11, 22, t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

func log(app, raw, begin, end string, pid, child int, cpu float64) string {
	return WrapperLog{App: app, Version: 100, Raw: raw, Begin: clock(begin), End: clock(end), PID: pid, Child: child, CPU: cpu}.String()
}

// unrecorded are exchanges whose recordings are not in the set: they are played from
// their results, unless the set has them.
var unrecorded = map[int]func(*world){
	83: func(w *world) { w.at(1795313529); w.submit(scientistKey, "shell", "dup-x", "sleep 1", "dup_0") },
	88: func(w *world) { w.at(1795313530); w.submit(scientistKey, "shell", "sp", "echo hello", "sp ace") },
	98: func(w *world) { w.retire(14) },
	99: func(w *world) { w.retire(15) },
	114: func(w *world) {
		w.at(1795313611)
		w.submit(scientistKey, "shell", "fail3", "echo partial output; echo bad thing >&2; exit 3", "fail3_0")
	},
	117: func(w *world) { w.at(1795313611); w.submit(scientistKey, "shell", "sig", "kill -9 $$", "sig_0") },
	123: func(w *world) {
		w.at(1795313611)
		w.post(`<submit_batch><authenticator>` + scientistKey + `</authenticator><batch><app_name>multi</app_name><batch_name>bigout</batch_name><job><name>bigout_0</name>
			<input_file><mode>inline</mode><source>head -c 2000000 /dev/zero</source></input_file>
			<input_template><file_info><no_delete/></file_info><workunit><file_ref><open_name>job.sh</open_name><copy_file/></file_ref></workunit></input_template>
			<output_template><file_info><name><OUTFILE_0/></name><max_nbytes>1000000</max_nbytes></file_info>
			<result><file_ref><file_name><OUTFILE_0/></file_name><open_name>stdout</open_name><copy_file/></file_ref></result></output_template></job></batch></submit_batch>`)
	},
	126: func(w *world) {
		w.at(1795313612)
		w.submit(scientistKey, "bare", "deadline", "sleep 60", "deadline_0")
	},
	127: func(w *world) {
		w.at(1795313612)
		w.p.Change(func(c *Config) { c.Sandbox = []string{"script"} })
		w.post(`<submit_batch><authenticator>` + scientistKey + `</authenticator><batch><app_name>shell</app_name><batch_name>sandbox</batch_name><job><name>sandbox_0</name>
			<input_file><mode>sandbox</mode><source>script</source></input_file></job></batch></submit_batch>`)
	},
	132: func(w *world) { w.at(1795313855); w.query(17) },
	145: func(w *world) { w.at(1795313855); w.query(19) },
	181: func(w *world) { w.at(1795313856); w.query(25) },
	199: func(w *world) { w.at(1795313856); w.query(28) },
	205: func(w *world) { w.at(1795313856); w.query(29) },
	323: func(w *world) { w.at(1795315082); w.submit(scientistKey, "bare", "timelim", "sleep 100", "timelim_0") },
}

// later is by how much the server's clock was past the Date of an answer, which is
// that of its first line.
var later = map[int]time.Duration{265: time.Second}

// randomParts finds the random parts of file names.
func randomParts(t *testing.T, samples string) map[string]int64 {
	parts := map[string]int64{}
	name := regexp.MustCompile(`([A-Za-z0-9-][A-Za-z0-9_-]*)_r([0-9]+)_[0-9]+`)
	err := filepath.WalkDir(samples, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, ".request.") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, m := range name.FindAllStringSubmatch(string(data), -1) {
			parts[m[1]], _ = strconv.ParseInt(m[2], 10, 64)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

// meanwhile is what happened at the project before an exchange.
var meanwhile = map[int]func(*world){
	4: func(w *world) {
		w.at(1795312490)
		w.submit(scientistKey, "shell", "first", "echo 1", "first_0")
		w.send("first_0_0")
		w.report(Report{Result: "first_0_0", Files: files("", ""), Credit: 0.11982705486111})
		w.at(1795312535)
		w.query(1)
		w.at(1795312603)
		w.submit(scientistKey, "shell", "lat1", "echo 1", "lat1_0")
		w.send("lat1_0_0")
		w.report(Report{Result: "lat1_0_0", Files: files("", ""), Credit: 0.050115295601852, CPU: 0.003102})
		w.submit(scientistKey, "shell", "lat2", "echo 1", "lat2_0", "lat2_1")
		w.retire(3)
		w.at(1795313223)
		w.query(2)
	},
	15: func(w *world) { w.send("wordcount-1_0", "wordcount-2_0") },
	19: func(w *world) {
		w.report(Report{
			Result: "wordcount-1_0", CPU: 0.011238, Elapsed: 6.027402, Credit: 0.059994973611111, Files: files("job one done after 4 steps\n", "warning: demo\n"),
			StderrTxt: log("shell", " 4 one", "02:09:50", "02:09:55", 9244, 9250, 0.011238),
		})
	},
	21: func(w *world) {
		w.report(Report{
			Result: "wordcount-2_0", CPU: 0.093962, Elapsed: 31, Credit: 0.37933582731481 - 0.059994973611111,
			Files: files("job two done after 30 steps\n", "warning: demo\n"),
		})
	},
	36: func(w *world) { // batches 1 and 2 are in no later list
		w.retire(1)
		w.retire(2)
	},
	37: func(w *world) { w.submit(otherKey, "shell", "other", "sleep 1", "other_0") },
	132: func(w *world) {
		w.at(1795313700)
		w.send("dup_0_0", "dup_1_0", "tlimit_0_0", "mlimit_0_0", "rc3_0_0", "optout_0_0", "quorum_0_0", "quorum_0_1", "deadline_0_0")
		w.report(Report{Result: "dup_0_0", Files: files("", ""), Credit: 0.030010804861111})
		w.report(Report{Result: "dup_1_0", Files: files("", ""), Credit: 0.040021354166667})
		w.fails("fail3_0_0", 195, files("partial output\n", "bad thing\n"))
		w.fails("sig_0_0", 195, files("", ""))
		w.report(Report{
			Result: "rc3_0_0", Elapsed: 2.010126, Credit: 0.020008198611111, Files: files("partial output\n", "bad thing\n", "3\n"),
			StderrTxt: log("shellrc", "", "02:13:54", "02:13:55", 5898, 5902, 0.002753),
		})
		w.report(Report{
			Result: "tlimit_0_0", CPU: 0.003058, Elapsed: 101.295356, Credit: 0.018518518518519, Files: files("", ""),
			StderrTxt: log("bare", "", "02:13:56", "02:15:36", 6034, 6042, 0.003058),
		})
		w.fails("dlimit_0_0", 196, files("", ""))
		w.report(Report{
			Result: "mlimit_0_0", CPU: 0.17, Elapsed: 27.149774, Credit: 0.27024080601852, Files: files("survived\n", ""),
			StderrTxt: log("bare", "", "02:13:58", "02:14:24", 6214, 6217, 0.024572),
		})
		w.fails("noout_0_0", 0, files("no result file\n"))
		w.report(Report{
			Result: "optout_0_0", Elapsed: 4.042106, Credit: 0.040233925462963, Files: files("no result file\n"),
			StderrTxt: log("multi", "", "02:13:56", "02:13:57", 6038, 6044, 0.001649),
		})
		w.fails("bigout_0_0", 0, nil)
		w.fails("retry_0_0", 195, files(""))
		w.fails("retry_0_1", 195, files(""))
		w.fails("retry_0_2", 195, files(""))
		w.report(Report{
			Result: "quorum_0_0", Elapsed: 3.02238, Credit: 0.023756603167957, Files: files("same\n"),
			StderrTxt: log("multi", "", "02:13:52", "02:13:53", 5693, 5698, 0),
		})
		w.report(Report{Result: "quorum_0_1", Credit: 0.023756603167957, Files: files("same\n")})
		w.report(Report{Result: "deadline_0_0", Credit: 0.76911936064815, Files: files("", "")})
		w.fails("sandbox_0_0", 195, files("", ""))
		w.send("dlerr_0_0", "dlsum_0_0")
		for _, r := range []string{"dlerr_0_0", "dlsum_0_0"} {
			w.report(Report{Result: r, ExitStatus: -186, ClientState: ClientDownloading})
		}
	},
	252: func(w *world) {
		w.p.SetNext("batch", 35)
		w.p.SetNext("workunit", 33)
		w.p.SetNext("result", 33)
	},
	253: func(w *world) {
		w.send("survey_0_0", "survey_1_0")
		w.report(Report{Result: "survey_0_0", Files: files("point 0\n", ""), Credit: 0.025})
		w.report(Report{Result: "survey_1_0", Files: files("point 1\n", ""), Credit: 0.025010224305556, CPU: 0.002911})
		w.fails("survey_2_0", 195, files("point 2\n", ""))
	},
	271: func(w *world) {
		w.send("to-abort_0_0", "to-abort_1_0", "abort-some_0_0", "abort-some_1_0", "abort-some_2_0")
	},
	278: func(w *world) {
		for _, r := range []string{"to-abort_0_0", "to-abort_1_0"} {
			w.report(Report{Result: r, ExitStatus: 202, ClientState: ClientAborted})
		}
	},
	281: func(w *world) {
		for _, r := range []string{"abort-some_0_0", "abort-some_2_0"} {
			w.report(Report{Result: r, ExitStatus: 202, ClientState: ClientAborted})
		}
		w.report(Report{Result: "abort-some_1_0", Files: files("started\nfinished\n", ""), CPU: 0.003965, Credit: 0.46934859328704})
	},
	286: func(w *world) { w.p.SetNext("batch", 40) },
	303: func(w *world) {
		w.p.SetNext("batch", 258)
		w.p.SetNext("result", 6367)
		w.submit(scientistKey, "shell", "ckpt", "./steps", "ckpt_0")
		w.send("ckpt_0_0")
		steps := ""
		for i := 1; i <= 25; i++ {
			steps += fmt.Sprintf("step %d\n", i)
			if i == 11 {
				steps += "resumed at 11\n"
			}
		}
		first := WrapperLog{App: "shell", Version: 100, Begin: clock("02:29:51"), PID: 20362, Child: 20364}.String()
		w.report(Report{
			Result: "ckpt_0_0", Elapsed: 16.052117, CPU: 0.09447, Files: files(steps+"finished\n", ""),
			StderrTxt: first + log("shell", "", "02:30:09", "02:30:24", 26896, 26898, 0.08447),
		})
	},
	308: func(w *world) {
		for id := range int64(259) {
			w.retire(int(id))
		}
		for i, kick := range []struct {
			at     int64
			credit float64
		}{{1795314748, 0.030000462962963}, {1795314773, 0.029978515046296}, {1795314801, 0.040066603703704}, {1795314829, 0.030127312962963}} {
			job := fmt.Sprintf("kick%d", kick.at)
			w.p.SetNext("batch", int64(259+i))
			w.at(kick.at)
			w.submit(scientistKey, "shell", job, "echo", job+"_0")
			w.send(job + "_0_0")
			w.report(Report{Result: job + "_0_0", Files: files("", ""), Credit: kick.credit})
		}
		w.at(1795314934)
		w.p.SetNext("batch", 264)
		w.submit(scientistKey, "shell", "idle1795314934", "echo", "idle_0")
	},
	312: func(w *world) { w.p.Change(func(c *Config) { c.FileSchema = true }) },
	321: func(w *world) { w.p.SetNext("batch", 266) },
	325: func(w *world) {
		w.p.Change(func(c *Config) { c.DisplayErrors = true })
		w.p.SetNext("workunit", 6379)
	},
	333: func(w *world) {
		w.p.Change(func(c *Config) { c.DisplayErrors = false })
		// These jobs are really run: how arguments arrive is the wrapper's doing.
		v := Volunteer{Host: Host{ID: 1, Flops: 1e9}, Dir: w.t.TempDir(), Grace: time.Second}
		for _, name := range []string{"argtest2_0_0", "argtest2_1_0"} {
			w.send(name)
			w.p.mu.Lock()
			a := w.p.assignment(w.p.byName[name])
			w.p.mu.Unlock()
			r := v.do(context.Background(), w.p, a)
			r.Result = name
			w.report(r)
		}
	},
}
