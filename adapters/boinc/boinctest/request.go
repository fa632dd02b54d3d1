package boinctest

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// node is an element of a request or template.
type node struct {
	name     string
	text     string // its own, all pieces together
	children []*node
}

// parseXML reads a document as PHP's SimpleXML does: it must be well-formed.
func parseXML(text string) (*node, error) {
	d := xml.NewDecoder(strings.NewReader(text))
	var root *node
	var stack []*node
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			n := &node{name: t.Name.Local}
			if len(stack) > 0 {
				top := stack[len(stack)-1]
				top.children = append(top.children, n)
			} else if root != nil {
				return nil, errors.New("a second root")
			} else {
				root = n
			}
			stack = append(stack, n)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(stack) > 0 {
				stack[len(stack)-1].text += string(t)
			} else if strings.TrimSpace(string(t)) != "" {
				return nil, errors.New("text outside of the root")
			}
		}
	}
	if root == nil {
		return nil, errors.New("no root")
	}
	return root, nil
}

// child gives the first child of a name, or nil.
func (n *node) child(name string) *node {
	if n == nil {
		return nil
	}
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

func (n *node) all(name string) []*node {
	var list []*node
	if n != nil {
		for _, c := range n.children {
			if c.name == name {
				list = append(list, c)
			}
		}
	}
	return list
}

func (n *node) has(name string) bool { return n.child(name) != nil }

// str gives a child's text, "" without.
func (n *node) str(name string) string {
	if c := n.child(name); c != nil {
		return c.text
	}
	return ""
}

// num gives a child as PHP's (int) and (float) do.
func (n *node) num(name string) int64 { return int64(phpNumber(n.str(name))) }

func (n *node) float(name string) float64 { return phpNumber(n.str(name)) }

var number = regexp.MustCompile(`^[ \t\r\n]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)`)

// phpNumber reads the number that a text begins with; 0 for none.
func phpNumber(s string) float64 {
	m := number.FindStringSubmatch(s)
	if m == nil {
		return 0
	}
	f, _ := strconv.ParseFloat(m[1], 64) // an infinity for what is too large
	return f
}

// phpFloat writes a number as PHP's echo does with precision 14.
func phpFloat(f float64) string {
	s := strconv.FormatFloat(f, 'g', 14, 64)
	if mantissa, exp, ok := strings.Cut(s, "e"); ok {
		if n, _ := strconv.Atoi(exp); n >= 0 && n < 15 {
			return strconv.FormatFloat(f, 'f', -1, 64)
		}
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		sign := exp[:1]
		return mantissa + "E" + sign + strings.TrimLeft(exp[1:], "0")
	}
	return s
}

// escapeHTML is PHP's htmlspecialchars.
func escapeHTML(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#039;").Replace(s)
}
