package boinc

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A project's replies look like XML and are often none: names stand in them
// unescaped, elements begin and do not end, and PHP prints messages between. This
// reader knows the few elements that hold others; every other element is a leaf,
// whose text goes to its end tag whatever stands between. It never fails on what it
// does not know, and its work is bounded by the size of the reply.

// element is a part of a reply.
type element struct {
	name     string
	text     string // of a leaf
	children []*element
}

// containers are the elements that hold others.
var containers = map[string]bool{
	"error": true, "batch": true, "job": true, "instance": true, "outfile": true, "absent_files": true, "completed_job": true,
	"templates": true, "input_template": true, "output_template": true, "file_info": true, "workunit": true, "result": true, "file_ref": true,
	"project_config": true, "platforms": true, "platform": true, "account_out": true,
	"ping": true, "create_batch": true, "estimate_batch": true, "submit_batch": true, "query_batches": true, "query_batch": true,
	"query_batch2": true, "query_job": true, "query_completed_job": true, "abort_batch": true, "abort_jobs": true, "retire_batch": true,
	"set_expire_time": true, "get_templates": true, "query_files": true, "upload_files": true,
}

const (
	maxDepth = 16
	maxNames = 256 // of elements, in one reply
)

var (
	errFatal = errors.New("the project's script died of a fatal error")
	errCut   = errors.New("the reply is cut off")
	errOdd   = errors.New("the reply is not of a BOINC project")
)

// parseReply reads the reply to an operation: the element of its name. An error that
// the project reports is in it, or stands alone in the place of it.
func parseReply(body []byte, operation string) (*element, error) {
	text, fatal := clean(body)
	if fatal {
		return nil, errFatal
	}
	root := &element{name: operation}
	begin := strings.Index(text, "<"+operation+">")
	if begin < 0 {
		// The project may not have come so far.
		if i := strings.Index(text, "<error>"); i >= 0 {
			return root, fill(root, text[i:])
		}
		return nil, errOdd
	}
	text = text[begin+len(operation)+2:]
	end := strings.LastIndex(text, "</"+operation+">")
	if end < 0 {
		return nil, errCut
	}
	return root, fill(root, text[:end])
}

// clean decodes the reply as UTF-8, whatever its declaration says, and drops the
// lines that PHP printed.
func clean(body []byte) (text string, fatal bool) {
	if !utf8.Valid(body) {
		body = bytes.ToValidUTF8(body, []byte("\uFFFD"))
	}
	var b strings.Builder
	b.Grow(len(body))
	inText := false // of a CDATA section, which is nobody's message
	for line := range strings.Lines(string(body)) {
		bare := strings.TrimSpace(line)
		switch {
		case inText:
		case strings.HasSuffix(bare, "<br />") && strings.HasPrefix(bare, "<b>") || bare == "<br />":
			if strings.HasPrefix(bare, "<b>Fatal error</b>") || strings.HasPrefix(bare, "<b>Parse error</b>") {
				return "", true
			}
			continue
		case strings.HasPrefix(bare, "<b>Fatal error</b>"):
			return "", true
		case strings.HasSuffix(bare, "<br />"): // a message that began at the end of a line
			line = strings.TrimSuffix(bare, "<br />") + "\n"
		}
		if i := strings.LastIndex(line, "<![CDATA["); i >= 0 {
			inText = true
		}
		if inText && strings.Contains(line, "]]>") {
			inText = false
		}
		b.WriteString(line)
	}
	return b.String(), false
}

// fill reads elements into a root.
func fill(root *element, text string) error {
	stack := []*element{root}
	ends := map[string]bool{} // leaves whose end tag is missing from here on
	names := map[string]bool{}
	for {
		i := strings.IndexByte(text, '<')
		if i < 0 {
			return nil
		}
		text = text[i+1:]
		j := strings.IndexByte(text, '>')
		if j < 0 {
			return nil
		}
		tag := text[:j]
		if k := strings.IndexByte(tag, '<'); k >= 0 { // no tag: a '<' in some text
			text = text[k:]
			continue
		}
		rest := text[j+1:]
		text = rest
		top := stack[len(stack)-1]
		if name, ok := strings.CutPrefix(tag, "/"); ok {
			for n := len(stack) - 1; n > 0; n-- {
				if stack[n].name == name {
					stack = stack[:n]
					break
				}
			}
			continue
		}
		name, empty := strings.CutSuffix(strings.TrimSpace(tag), "/")
		name = strings.TrimSpace(name)
		if !isName(name) {
			continue
		}
		if !names[name] {
			if len(names) == maxNames {
				return errOdd
			}
			names[name] = true
		}
		e := &element{name: name}
		switch {
		case empty:
			top.children = append(top.children, e)
		case containers[name] && !isLeaf(name, rest):
			if len(stack) == maxDepth {
				return errOdd
			}
			top.children = append(top.children, e)
			stack = append(stack, e)
		case ends[name]:
		default:
			end := strings.Index(rest, "</"+name+">")
			if end < 0 {
				ends[name] = true
				continue
			}
			e.text = plain(rest[:end])
			top.children = append(top.children, e)
			text = rest[end+len(name)+3:]
		}
	}
}

// isLeaf tells the two uses of error apart: that of the interface holds a number and
// a message, that of a job the name of an error.
func isLeaf(name, rest string) bool {
	if name != "error" {
		return false
	}
	inner, _, ok := strings.Cut(rest[:min(len(rest), 256)], "</error>")
	return ok && !strings.Contains(inner, "<")
}

func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// unescape undoes the references that PHP makes; others are left as they stand.
var unescape = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&quot;", `"`, "&#039;", "'", "&#39;", "'", "&apos;", "'", "&amp;", "&")

func plain(s string) string {
	if inner, ok := strings.CutPrefix(strings.TrimSpace(s), "<![CDATA["); ok {
		inner, _ = strings.CutSuffix(inner, "]]>")
		return unescape.Replace(inner)
	}
	return unescape.Replace(s)
}

// child gives the first child of a name, or nil.
func (e *element) child(name string) *element {
	if e != nil {
		for _, c := range e.children {
			if c.name == name {
				return c
			}
		}
	}
	return nil
}

func (e *element) all(name string) []*element {
	var list []*element
	if e != nil {
		for _, c := range e.children {
			if c.name == name {
				list = append(list, c)
			}
		}
	}
	return list
}

func (e *element) has(name string) bool { return e.child(name) != nil }

// str gives the trimmed text of a child; "" without one.
func (e *element) str(name string) string {
	if c := e.child(name); c != nil {
		return strings.TrimSpace(c.text)
	}
	return ""
}

// num gives a child's whole number; 0 for what is none.
func (e *element) num(name string) int64 {
	n, err := strconv.ParseInt(e.str(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// float gives a child's number; 0 for what is none.
func (e *element) float(name string) float64 {
	f, err := strconv.ParseFloat(e.str(name), 64)
	if err != nil {
		return 0
	}
	return f
}
