package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	zx509 "github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"
)

// differing are the fields of zcrypto's certificate that are not the same in all
// certificates with one skeleton, and the extensions, by zlint's names for them.
func differing() []string {
	return []string{
		"Raw", "RawTBSCertificate", "RawSubject", "Subject", "RawSubjectPublicKeyInfo", "PublicKey", "SerialNumber",
		"NotBefore", "NotAfter", "ValidityPeriod", "Signature", "SubjectKeyId", "Extensions", "ExtensionsMap",
		// A certificate with other names than mailboxes has no skeleton, so that their lists are empty in all.
		"EmailAddresses", "extension SubjectAlternateNameOID", "extension SubjectKeyIdentityOID", "extension ?",
	}
}

// leftOut are the fields that [splice] does not fill in: no lint may read them.
func leftOut() []string {
	return []string{
		"ValidationLevel", "FingerprintMD5", "FingerprintSHA1", "FingerprintSHA256", "SPKIFingerprint", "SPKISubjectFingerprint",
		"TBSCertificateFingerprint", "FingerprintNoCT",
	}
}

// harmless are methods of zcrypto's certificate, or of what has one of the same
// name, by which nothing is read that [differing] has.
func harmless() []string {
	return []string{
		"Equal",             // of object identifiers and times
		"GetParsedDNSNames", // no certificate of a skeleton has any
	}
}

// sources reads zlint: which lints are in which file, and which fields and
// extensions the code there, and all that it calls in zlint, speaks of.
type sources struct {
	fields    map[string]bool
	methods   map[string]bool
	functions map[string]ast.Node // by package's folder and name
}

// TestFixedLints makes the lists of [fixed] and [gated] anew from zlint's sources. A field is
// read wherever its name is selected, of whatever, and all are by a method that is not [harmless]: that
// says too much at times, never too little.
func TestFixedLints(t *testing.T) {
	root := zlintIs(t, "{{.Dir}}")
	s := &sources{fields: map[string]bool{}, methods: map[string]bool{}, functions: map[string]ast.Node{}}
	for field := range reflect.TypeFor[zx509.Certificate]().Fields() {
		s.fields[field.Name] = true
	}
	for method := range reflect.TypeFor[*zx509.Certificate]().Methods() {
		s.methods[method.Name] = !slices.Contains(harmless(), method.Name)
	}
	files := map[string]map[string]*ast.File{}
	for _, dir := range []string{"util", "lints/cabf_smime_br", "lints/rfc", "lints/mozilla", "lints/apple", "lints/community"} {
		files[dir] = s.parse(t, root, dir)
	}
	var found, gates []string
	for dir, inDir := range files {
		for _, file := range inDir {
			read := s.read(dir, file)
			if i := slices.IndexFunc(leftOut(), func(name string) bool { return read[name] }); i >= 0 && dir != "util" {
				t.Errorf("%v read %s, which is not filled in", lintsIn(file), leftOut()[i])
			}
			other := func(name string) bool { return read[name] }
			// What is less than a warning, and what a plain subject spares, is another matter.
			names := slices.DeleteFunc(lintsIn(file), func(name string) bool {
				return !registered(name) || strings.HasPrefix(name, "n_") || ofSubject()[name] || formal()[name]
			})
			if !slices.ContainsFunc(differing(), other) {
				found = append(found, names...)
				continue
			}
			if read = s.gatesOf(dir, file); read != nil && !slices.ContainsFunc(differing(), other) {
				gates = append(gates, names...)
			}
		}
	}
	compareLists(t, "fixed", fixed(), found)
	compareLists(t, "gated", gated(), gates)
}

// gatesOf gives what the lints of a file read to tell whether a certificate
// concerns them; nil where they do not do so by themselves.
func (s *sources) gatesOf(dir string, file *ast.File) map[string]bool {
	all := map[string]bool{}
	gates := 0
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "CheckApplies" {
			if usesReceiver(f) { // another method may be behind it
				return nil
			}
			gates++
			maps.Copy(all, s.read(dir, f))
		}
	}
	if gates != len(lintsIn(file)) {
		return nil
	}
	return all
}

func usesReceiver(f *ast.FuncDecl) (used bool) {
	for _, name := range f.Recv.List[0].Names {
		ast.Inspect(f.Body, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			used = used || ok && id.Name == name.Name
			return true
		})
	}
	return used
}

func compareLists(t *testing.T, list string, listed map[string]bool, found []string) {
	t.Helper()
	slices.Sort(found)
	for _, name := range found {
		if !listed[name] {
			t.Logf("%s could be %s", name, list)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("%s is not %s, or no more: it reads what differs, or zlint has it in another way, or not at all", name, list)
	}
	if len(found) < 20 {
		t.Errorf("only %d lints that are %s were found in zlint's sources", len(found), list)
	}
}

// zlintIs asks Go about the zlint that is built in.
func zlintIs(t *testing.T, what string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", what, "github.com/zmap/zlint/v3").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestFormalLintsWereRead fails with each new zlint, until somebody has read the
// lints of [formal] in it.
func TestFormalLintsWereRead(t *testing.T) {
	if version := zlintIs(t, "{{.Version}}"); version != readVersion {
		t.Errorf("zlint is %s; read the lints of formalNames there, whether they still speak only of what a skeleton holds, and set readVersion", version)
	}
	for name := range formal() {
		if !registered(name) {
			t.Errorf("zlint has no %s", name)
		}
		if fixed()[name] || gated()[name] {
			t.Errorf("%s is in two lists", name)
		}
	}
}

func registered(name string) bool {
	return zlint.GlobalRegistry().CertificateLints().ByName(name) != nil
}

func (s *sources) parse(t *testing.T, root, dir string) map[string]*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = file
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				s.functions[dir+" "+f.Name.Name] = f
			}
		}
	}
	return files
}

// read gives what a node speaks of, with all functions of zlint that it names.
func (s *sources) read(dir string, node ast.Node) map[string]bool {
	read, seen := map[string]bool{}, map[ast.Node]bool{}
	var follow func(dir string, node ast.Node)
	follow = func(dir string, node ast.Node) {
		if node == nil || seen[node] {
			return
		}
		seen[node] = true
		ast.Inspect(node, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				extension, content := extensionOf(n)
				if content {
					read["extension "+extension] = true
				}
				if extension != "" {
					return false // what these read of the certificate is that extension
				}
			case *ast.SelectorExpr:
				if s.fields[n.Sel.Name] {
					read[n.Sel.Name] = true
				}
				if s.methods[n.Sel.Name] { // which may read anything
					read["Raw"] = true
				}
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "util" {
					follow("util", s.functions["util "+n.Sel.Name])
				}
			case *ast.Ident:
				follow(dir, s.functions[dir+" "+n.Name])
			}
			return true
		})
	}
	follow(dir, node)
	return read
}

// extensionOf names the extension that util.GetExtFromCert or util.IsExtInCert is
// asked for. The second only says whether it is there, which a skeleton holds.
func extensionOf(call *ast.CallExpr) (name string, content bool) {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name != "GetExtFromCert" && f.Sel.Name != "IsExtInCert" || len(call.Args) != 2 {
		return "", false
	}
	if id, ok := call.Args[1].(*ast.SelectorExpr); ok {
		return id.Sel.Name, f.Sel.Name == "GetExtFromCert"
	}
	return "?", f.Sel.Name == "GetExtFromCert"
}

// lintsIn are the names that a file registers.
func lintsIn(file *ast.File) (names []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		pair, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		if key, ok := pair.Key.(*ast.Ident); !ok || key.Name != "Name" {
			return true
		}
		if literal, ok := pair.Value.(*ast.BasicLit); ok {
			if name, err := strconv.Unquote(literal.Value); err == nil {
				names = append(names, name)
			}
		}
		return true
	})
	return names
}
