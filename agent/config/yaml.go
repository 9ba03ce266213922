package config

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile bounds a settings file, in bytes.
const maxFile = 64 << 10

// readYAML reads one file's settings: a mapping of names to single values or
// lists of them, and nothing else that YAML knows. Values stay text: their type
// is the table's business. If the file as a whole cannot be read, broken is true.
func readYAML(data []byte, file string, from Origin, private bool) (entries []Entry, problems []Problem, broken bool) {
	if tooDeep(data) {
		return nil, []Problem{{Source: from, Where: file, Wrong: "The file has overlong lines or brackets without end, so nothing in it counts.",
			Cure: fmt.Sprintf("Keep lines under %d bytes, and brackets under %d.", maxLineBytes, maxBrackets)}}, true
	}
	parsed, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, []Problem{notYAML(err, file, from)}, true
	}
	r := yamlReader{file: file, from: from, private: private, seen: map[string]bool{}}
	for i, doc := range parsed.Docs {
		switch {
		case doc.Body == nil:
		case i > 0:
			r.add(doc.Body, "", "The file has a second document.", "Leave one document, without lines of three dashes.")
		default:
			r.mapping(doc.Body)
		}
	}
	return r.entries, r.problems, false
}

// The parser's time grows with the square of the nesting: 64,000 brackets held
// goccy/go-yaml 1.19.2 up for a minute. Settings nest once.
const (
	maxLineBytes = 5000
	maxBrackets  = 250
)

func tooDeep(data []byte) bool {
	for line := range bytes.Lines(data) {
		if len(line) > maxLineBytes {
			return true
		}
	}
	return bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) > maxBrackets
}

// notYAML leaves the parser's own words out: they may repeat the text, and there
// may be a secret in it.
func notYAML(err error, file string, from Origin) Problem {
	where := file
	if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil && e.GetToken().Position != nil {
		where = fmt.Sprintf("%s:%d", file, e.GetToken().Position.Line)
	}
	return Problem{Source: from, Where: where, Wrong: "The file is not YAML, so nothing in it counts.",
		Cure: "Look at indentation, quotes, double names and colons there; each line is \"name: value\"."}
}

type yamlReader struct {
	file     string
	from     Origin
	private  bool
	seen     map[string]bool
	entries  []Entry
	problems []Problem
}

func (r *yamlReader) where(n ast.Node) string {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return fmt.Sprintf("%s:%d", r.file, t.Position.Line)
	}
	return r.file
}

func (r *yamlReader) add(n ast.Node, setting, wrong, cure string) {
	r.problems = append(r.problems, Problem{Setting: setting, Source: r.from, Where: r.where(n), Wrong: wrong, Cure: cure})
}

func (r *yamlReader) mapping(body ast.Node) {
	switch n := body.(type) {
	case *ast.MappingNode:
		for _, pair := range n.Values {
			r.pair(pair)
		}
	case *ast.MappingValueNode:
		r.pair(n)
	case *ast.NullNode, *ast.CommentGroupNode:
	default:
		r.add(n, "", "The file is not a list of \"name: value\".", "Write each setting in a line of its own.")
	}
}

func (r *yamlReader) pair(n *ast.MappingValueNode) {
	name, ok := scalar(n.Key)
	if !ok {
		r.add(n.Key, "", "There is something else where a setting's name belongs.", "Write each setting as \"name: value\".")
		return
	}
	if r.seen[name] {
		r.add(n.Key, name, "It is set twice in this file.", "Leave one of the two; the first counts.")
		return
	}
	r.seen[name] = true
	e := Entry{Name: name, Where: r.where(n.Key), Private: r.private}
	if list, isList := n.Value.(*ast.SequenceNode); isList {
		e.Items = []string{}
		for _, item := range list.Values {
			value, ok := scalar(item)
			if !ok {
				r.add(item, name, "Something in the list is not a single value.", "Write single values only.")
				e.Unusable = true
			}
			e.Items = append(e.Items, value)
		}
	} else if e.Text, ok = scalar(n.Value); !ok {
		r.add(n.Value, name, "It is not a single value or a list.", "Write \"name: value\", with quotes around what YAML reads otherwise.")
		e.Unusable = true
	}
	r.entries = append(r.entries, e)
}

// scalar gives a single value as it is written; null is empty.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.NullNode:
		return "", true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}
