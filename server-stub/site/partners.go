package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"smime-agent/server-stub/policy"
)

// PartnerFiles reads what the rules name beside them: files, and the files of
// folders that end as certificates do. What is not there is left to the policy's
// check, which knows the line.
func PartnerFiles(rules []byte, dir string) ([]policy.PartnerFile, error) {
	var files []policy.PartnerFile
	for _, named := range policy.PartnerPaths(rules) {
		at := within(dir, filepath.FromSlash(named))
		info, err := os.Stat(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		names := []string{named}
		if info.IsDir() {
			if names, err = certificatesIn(at, named); err != nil {
				return nil, err
			}
		}
		for _, name := range names {
			f, err := readPartner(name, within(dir, filepath.FromSlash(name)))
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
	}
	return files, nil
}

func certificatesIn(folder, named string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if slices.Contains(policy.PartnerEndings(), strings.ToLower(filepath.Ext(e.Name()))) && !e.IsDir() {
			names = append(names, path.Join(filepath.ToSlash(named), e.Name()))
		}
	}
	return names, nil
}

func readPartner(name, at string) (policy.PartnerFile, error) {
	info, err := os.Stat(at)
	if err != nil {
		return policy.PartnerFile{}, err
	}
	if info.Size() > policy.MaxPartnerFile {
		return policy.PartnerFile{}, fmt.Errorf("%s has more than %d bytes; export the certificates of the people alone", at, policy.MaxPartnerFile)
	}
	content, err := os.ReadFile(at)
	return policy.PartnerFile{Name: name, Content: content}, err
}
