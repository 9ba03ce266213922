// Command wineprobe is a small program of the tests under Wine: it keeps the
// prefix alive, says who it is, lists keys, lets a program crash, and squats on a
// pipe's name as an impostor would.
package main

import (
	"context"
	"crypto/sha1" //nolint:gosec // Windows names certificates by it
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"syscall"
	"time"

	"github.com/Microsoft/go-winio"

	"smime-agent/platform"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "whoami":
		u, err := platform.CurrentUser()
		fmt.Println(u.Account)
		return err
	case len(args) == 2 && args[0] == "squat":
		return squat(args[1])
	case len(args) == 2 && args[0] == "crash":
		return crash(args[1])
	case len(args) == 1 && args[0] == "keys":
		return keys()
	}
	time.Sleep(time.Hour)
	return nil
}

// crash ends the child of a program that runs itself as a child. From outside of
// Wine it would seem to have ended well.
func crash(name string) error {
	snapshot, err := syscall.CreateToolhelp32Snapshot(syscall.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return err
	}
	defer syscall.CloseHandle(snapshot)
	parents := map[uint32]uint32{}
	e := syscall.ProcessEntry32{}
	e.Size = uint32(reflect.TypeFor[syscall.ProcessEntry32]().Size())
	for err := syscall.Process32First(snapshot, &e); err == nil; err = syscall.Process32Next(snapshot, &e) {
		if syscall.UTF16ToString(e.ExeFile[:]) == name {
			parents[e.ProcessID] = e.ParentProcessID
		}
	}
	for child, parent := range parents {
		if _, same := parents[parent]; !same {
			continue
		}
		p, err := os.FindProcess(int(child))
		if err != nil {
			return err
		}
		return p.Kill()
	}
	return fmt.Errorf("no child of %s among %v", name, parents)
}

// key is a key of ours as the Windows store lists it.
type key struct {
	ID        string
	Certified bool
	// SHA1 and SHA256 are of its newest certificate, in hex; empty if it has none.
	SHA1, SHA256 string
}

func keys() error {
	stores, err := platform.Stores(context.Background(), platform.StoreOptions{})
	if err != nil {
		return err
	}
	all := []key{}
	for _, s := range stores {
		if s.Info().Name != "windows" {
			continue
		}
		found, err := s.Keys(context.Background())
		if err != nil {
			return err
		}
		for _, k := range found {
			listed := key{ID: string(k.ID), Certified: k.Certified}
			if chain, err := s.Find(context.Background(), k.ID); err == nil {
				short, long := sha1.Sum(chain[0].Raw), sha256.Sum256(chain[0].Raw) //nolint:gosec // a name
				listed.SHA1, listed.SHA256 = hex.EncodeToString(short[:]), hex.EncodeToString(long[:])
			}
			all = append(all, listed)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// squat holds a pipe that belongs to an account that nobody has.
func squat(name string) error {
	l, err := winio.ListenPipe(name, &winio.PipeConfig{SecurityDescriptor: "O:S-1-5-21-1-2-3-1001D:P(A;;GA;;;WD)"})
	if err != nil {
		return err
	}
	defer l.Close()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
	}
}
