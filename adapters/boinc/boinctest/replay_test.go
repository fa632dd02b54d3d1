package boinctest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/testenv"
)

// exchange is one line of INDEX.tsv.
type exchange struct {
	file, method, path, status, contentType, ext string
	number                                       int
}

func index(t *testing.T) (string, []exchange) {
	t.Helper()
	dir := filepath.Join(testenv.Shared(t), "samples", "boinc")
	data, err := os.ReadFile(filepath.Join(dir, "INDEX.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var list []exchange
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		f := strings.Split(line, "\t")
		if i == 0 {
			continue
		}
		digits, _, _ := strings.Cut(filepath.Base(f[0]), "-")
		n, err := strconv.Atoi(digits)
		if err != nil || len(f) < 8 {
			t.Fatalf("INDEX.tsv:%d: %q", i+1, line)
		}
		list = append(list, exchange{file: f[0], method: f[3], path: f[4], status: f[5], contentType: f[6], ext: f[7], number: n})
	}
	slices.SortStableFunc(list, func(a, b exchange) int { return cmp.Compare(a.number, b.number) })
	return dir, list
}

var (
	keyed    = regexp.MustCompile(`\{\{MD5\(AUTHENTICATOR\+"([^"]*)"\)\}\}`)
	otherMD5 = regexp.MustCompile(`\{\{MD5\(OTHER_USER_AUTHENTICATOR\+"([^"]*)"\)\}\}`)
	leftOut  = regexp.MustCompile(`\((\d+) zero bytes left out of this recording\)`)
)

// fill puts keys where the recordings have placeholders.
func fill(s string) string {
	s = strings.NewReplacer("{{AUTHENTICATOR}}", scientistKey, "{{OTHER_USER_AUTHENTICATOR}}", otherKey, "{{NO_PERMISSION_AUTHENTICATOR}}", strangerKey,
		"{{APP_LIMITED_AUTHENTICATOR}}", limitedKey, "{{VOLUNTEER_AUTHENTICATOR}}", volunteerKey,
		"{{MD5(password+email)}}", hexMD5(password+"scientist@example.org")).Replace(s)
	s = keyed.ReplaceAllStringFunc(s, func(m string) string { return hexMD5(scientistKey + keyed.FindStringSubmatch(m)[1]) })
	s = otherMD5.ReplaceAllStringFunc(s, func(m string) string { return hexMD5(otherKey + otherMD5.FindStringSubmatch(m)[1]) })
	return leftOut.ReplaceAllStringFunc(s, func(m string) string {
		n, _ := strconv.Atoi(leftOut.FindStringSubmatch(m)[1])
		return strings.Repeat("\x00", n)
	})
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestReplay drives the double through every recorded exchange of the server, in
// order, and compares status, content type and body.
//
// Bodies are equal byte by byte, but for these: zip and tar archives are compared
// by their members, as compression and packing are the tool's; pages for people by
// title and sentence, as the project's theme around them says nothing.
func TestReplay(t *testing.T) {
	dir, list := index(t)
	w := newWorld(t, dir)
	for _, x := range list {
		w.seen[x.number] = w.seen[x.number] || x.method != "TCP"
	}
	last := 0
	compared := 0
	for _, x := range list {
		if x.method == "TCP" {
			continue
		}
		head := textproto.MIMEHeader{}
		recorded := read(t, dir, x.file+".headers.txt")
		for line := range strings.Lines(recorded) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
				head.Set(k, v)
			}
		}
		want := fill(read(t, dir, x.file+".response."+x.ext))
		now, err := time.Parse(time.RFC1123, head.Get("Date"))
		if err != nil {
			t.Fatal(err)
		}
		if m := regexp.MustCompile(`<server_time>([0-9.]+)<`).FindStringSubmatch(want); m != nil {
			f, _ := strconv.ParseFloat(m[1], 64)
			now = time.UnixMicro(int64(f*1e6 + 0.5))
		}
		for n := last + 1; n <= x.number; n++ {
			w.now = now
			if f := meanwhile[n]; f != nil {
				f(w)
			}
			if f := unrecorded[n]; f != nil && !w.seen[n] {
				f(w)
			}
		}
		last, w.now = x.number, now.Add(later[x.number])
		rec := w.play(x, head, dir)
		compared++
		if rec.Code != mustAtoi(t, x.status) {
			t.Errorf("%s: status %d, recorded %s", x.file, rec.Code, x.status)
		}
		if got := rec.Header().Get("Content-Type"); got != x.contentType {
			t.Errorf("%s: content type %q, recorded %q", x.file, got, x.contentType)
		}
		for _, name := range []string{"Content-Disposition", "Location"} {
			if got, want := rec.Header().Get(name), head.Get(name); got != want && !strings.HasSuffix(want, ".zip") {
				t.Errorf("%s: %s %q, recorded %q", x.file, name, got, want)
			}
		}
		if got := rec.Body.String(); x.difference(got, want) != "" {
			t.Errorf("%s: %s\n--- have\n%.4000s\n--- recorded\n%.4000s", x.file, x.difference(got, want), got, want)
		}
	}
	t.Logf("%d exchanges answered as recorded", compared)
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

func mustAtoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// play sends the recorded request.
func (w *world) play(x exchange, head textproto.MIMEHeader, dir string) *httptest.ResponseRecorder {
	target, body := x.path, ""
	kind := head.Get("Content-Type")
	// The response's headers stand in the same file: the request's type is the first.
	for line := range strings.Lines(read(w.t, dir, x.file+".headers.txt")) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && k == "Content-Type" {
			kind = v
			break
		}
	}
	switch {
	case x.method == "GET":
		line := fill(read(w.t, dir, x.file+".request.txt"))
		_, target, _ = strings.Cut(strings.TrimSpace(line), " ")
	case strings.HasPrefix(kind, "application/x-www-form-urlencoded"):
		body = "request=" + url.QueryEscape(fill(read(w.t, dir, x.file+".request.xml")))
	default:
		name := x.file + ".request.txt"
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			name = x.file + ".request.xml"
		}
		body = fill(read(w.t, dir, name))
		if strings.HasPrefix(kind, "multipart/") {
			body = strings.ReplaceAll(body, "\n", "\r\n")
			if strings.Contains(body, "\r\r\n") { // the recording kept its line ends
				body = strings.ReplaceAll(body, "\r\r\n", "\r\n")
			}
		}
	}
	r := httptest.NewRequest(x.method, target, strings.NewReader(body))
	if x.method == "POST" {
		r.Header.Set("Content-Type", kind)
	}
	if c := head.Get("Cookie"); c != "" {
		r.Header.Set("Cookie", fill(c))
	}
	rec := httptest.NewRecorder()
	w.p.ServeHTTP(rec, r)
	return rec
}

// difference says where an answer differs from the recorded one, as far as that
// means something.
func (x exchange) difference(got, want string) string {
	switch {
	case x.ext == "zip":
		return unequal(unzip(got), unzip(want))
	case x.ext == "tar":
		if len(got) != len(want) {
			return fmt.Sprintf("%d bytes, recorded %d", len(got), len(want))
		}
		return unequal(untar(got), untar(want))
	case x.ext == "html" && strings.HasPrefix(want, "<!DOCTYPE"):
		return unequal(essence(got), essence(want))
	case got != want:
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		return fmt.Sprintf("the bodies differ from byte %d: %.60q and %.60q", i, got[i:], want[i:])
	}
	return ""
}

func unequal(got, want map[string]string) string {
	if maps.Equal(got, want) {
		return ""
	}
	return fmt.Sprintf("%q, recorded %q", got, want)
}

func unzip(s string) map[string]string {
	z, err := zip.NewReader(strings.NewReader(s), int64(len(s)))
	if err != nil {
		return map[string]string{"": err.Error()}
	}
	m := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err == nil {
			content, _ := io.ReadAll(r)
			m[f.Name] = string(content)
		}
	}
	return m
}

func untar(s string) map[string]string {
	r := tar.NewReader(bytes.NewReader([]byte(s)))
	m := map[string]string{}
	for {
		h, err := r.Next()
		if err != nil {
			return m
		}
		content, _ := io.ReadAll(r)
		m[h.Name] = string(content)
	}
}

// essence is what a page for people says.
func essence(s string) map[string]string {
	m := map[string]string{}
	for name, re := range map[string]string{
		"title": `<title>([^<]*)</title>`, "heading": `<h2>([^<]*)</h2>`, "sentence": `</h2>\s*([^<]*)<br>`, "user": `home\.php>([^<]*)</a>`,
	} {
		if f := regexp.MustCompile(re).FindStringSubmatch(s); f != nil {
			m[name] = f[1]
		}
	}
	return m
}
