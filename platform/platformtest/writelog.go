package platformtest

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// RecordWrites are the words before a command that has strace(1) write down in
// a file what the command, with all its threads and children, asks of the file
// system. strace is not the command's parent (-D): its process ID is what the
// caller started.
func RecordWrites(log string) []string {
	return []string{"strace", "-D", "-f", "--seccomp-bpf", "-qq", "-ttt", "-T", "-xx", "-y", "-s", "16777216", "-e", "signal=none",
		"-e", "trace=openat,openat2,creat,write,pwrite64,writev,pwritev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,mkdir,mkdirat,symlink,symlinkat,fallocate,copy_file_range,sendfile",
		"-o", log}
}

// call is one system call that succeeded. Times are microseconds.
type call struct {
	begun, ended int64
	name         string
	args         []string
	result       int64
	// opened is the path that a call which opens a file came to.
	opened string
}

// WriteLog is what processes did to the files of a machine, in order. A
// [PowerLoss] makes of it what a loss of power may leave.
type WriteLog struct{ calls []call }

// ReadWriteLog reads what one or several strace under [RecordWrites] wrote at
// the same time, once the processes are dead.
func ReadWriteLog(logs ...string) (*WriteLog, error) {
	l := &WriteLog{}
	for _, name := range logs {
		if err := l.read(name); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	slices.SortStableFunc(l.calls, func(a, b call) int { return cmp.Compare(a.ended, b.ended) })
	return l, nil
}

func (l *WriteLog) read(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	begun := map[string]string{} // by thread
	in := bufio.NewReaderSize(f, 1<<20)
	for {
		line, readErr := in.ReadString('\n')
		if readErr != nil { // a last line without its end is of a call that the kill took away
			return errors.Join(f.Close(), ignoreEnd(readErr))
		}
		if err := l.line(strings.TrimSuffix(line, "\n"), begun); err != nil {
			return errors.Join(err, f.Close())
		}
	}
}

func ignoreEnd(err error) error {
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

var (
	wholeCall = regexp.MustCompile(`^(\d+\.\d+) (\w+)\((.*)\) += (-?\d+|\?)(?:<([^>]*)>(?:\(deleted\))?)?(?: E\w+)?(?: \(.*\))? <(\d+\.\d+)>$`)
	restCall  = regexp.MustCompile(`^(\d+\.\d+) <\.\.\. \w+ resumed>(.*)$`)
)

const unfinished = " <unfinished ...>"

// line takes one line; a call that another thread's came between stands on two.
func (l *WriteLog) line(line string, begun map[string]string) error {
	thread, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimLeft(rest, " ")
	if head, ok := strings.CutSuffix(rest, unfinished); ok {
		begun[thread] = head
		return nil
	}
	ended := int64(0)
	if m := restCall.FindStringSubmatch(rest); m != nil {
		at, err := micro(m[1])
		if err != nil {
			return err
		}
		ended, rest = at, begun[thread]+m[2]
	}
	m := wholeCall.FindStringSubmatch(rest)
	if m == nil {
		if strings.Contains(rest, "(") && strings.Contains(rest, " = ") {
			return fmt.Errorf("a line that is no call: %.200s", rest)
		}
		return nil // "+++ exited +++", "????"
	}
	c, err := readCall(m, ended)
	if err != nil || c.result < 0 {
		return err
	}
	l.calls = append(l.calls, c)
	return nil
}

func readCall(m []string, ended int64) (call, error) {
	begun, err1 := micro(m[1])
	took, err2 := micro(m[6])
	if err := errors.Join(err1, err2); err != nil {
		return call{}, err
	}
	c := call{begun: begun, ended: ended, name: m[2], result: -1, opened: unhex(m[5])}
	if ended == 0 {
		c.ended = begun + took
	}
	if n, err := strconv.ParseInt(m[4], 10, 64); err == nil {
		c.result = n
	}
	// All strings are in hex, so a comma is one of the call's.
	c.args = strings.Split(m[3], ", ")
	return c, nil
}

// micro reads seconds with a fraction; as a float64 they would lose the last digits.
func micro(s string) (int64, error) {
	whole, part, _ := strings.Cut(s, ".")
	return strconv.ParseInt(whole+(part + "000000")[:6], 10, 64)
}

// unhex reads \x41\x42, with or without the quotes.
func unhex(s string) string {
	s = strings.Trim(s, `"`)
	out := make([]byte, 0, len(s)/4)
	for ; len(s) >= 4 && s[:2] == `\x`; s = s[4:] {
		n, err := strconv.ParseUint(s[2:4], 16, 8)
		if err != nil {
			break
		}
		out = append(out, byte(n))
	}
	return string(out)
}

// arg is the n-th argument, empty if there are fewer.
func (c *call) arg(n int) string {
	if n >= len(c.args) {
		return ""
	}
	return c.args[n]
}

func (c *call) number(n int) int64 {
	v, err := strconv.ParseInt(c.arg(n), 10, 64)
	if err != nil {
		return -1
	}
	return v
}

// file is the path of the open file or folder in an argument; for standard
// streams and sockets it is no path.
func (c *call) file(n int) string {
	_, path, _ := strings.Cut(c.arg(n), "<")
	path, _, _ = strings.Cut(path, ">")
	return unhex(path)
}

// path is that of a name, seen from the folder in another argument.
func (c *call) path(folder, name int) string {
	p := unhex(c.arg(name))
	if filepath.IsAbs(p) || folder < 0 {
		return filepath.Clean(p)
	}
	return filepath.Join(c.file(folder), p)
}
