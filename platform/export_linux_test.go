//go:build cgo

package platform

// OpenNSS opens an NSS folder with a softoken of the test's choice.
func OpenNSS(dir, softoken string, ask PINFunc) (Store, error) {
	module, err := loadSoftoken([]string{softoken}, len(siblingsOf(softoken)) > 0)
	if err != nil {
		return nil, err
	}
	return newNSSStore("nss:"+dir, module, dir, nil, ask), nil
}
