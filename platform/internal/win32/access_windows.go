package win32

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Grant is one entry of an access list that gives rights.
type Grant struct {
	SID  *windows.SID
	Mask windows.ACCESS_MASK
	// Below says that the rights are not on the object, but on what will be made in it.
	Below bool
}

// Types of access control entries ([MS-DTYP] 2.4.4.1). Those that deny take
// rights away and those that audit give none.
const (
	aceAllowed         = 0x00
	aceDenied          = 0x01
	aceAudit           = 0x02
	aceDeniedObject    = 0x06
	aceAuditObject     = 0x07
	aceAllowedCallback = 0x09
	aceDeniedCallback  = 0x0a
	aceMandatoryLabel  = 0x11
)

// inheritOnly marks an entry that is for what will be made below, not for the
// object itself (INHERIT_ONLY_ACE).
const inheritOnly = 0x08

// Grants lists who gets what by an access list. A missing list (nil) gives
// everything to everybody and is an error, as is an entry of an unknown kind:
// who cannot read a list must not trust it.
func Grants(dacl *windows.ACL) ([]Grant, error) {
	if dacl == nil {
		return nil, fmt.Errorf("no access list: %w", windows.ERROR_INVALID_ACL)
	}
	var all []Grant
	for i := range uint32(dacl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, i, &ace); err != nil {
			return nil, fmt.Errorf("read access entry %d: %w", i, err)
		}
		switch ace.Header.AceType {
		case aceDenied, aceAudit, aceDeniedObject, aceAuditObject, aceDeniedCallback, aceMandatoryLabel:
			continue
		case aceAllowed, aceAllowedCallback:
		default:
			return nil, fmt.Errorf("access entry %d is of the unknown kind %d: %w", i, ace.Header.AceType, windows.ERROR_INVALID_ACL)
		}
		// The list lies in the caller's memory; what is returned must not.
		sid, err := (*windows.SID)(unsafe.Pointer(&ace.SidStart)).Copy()
		if err != nil {
			return nil, fmt.Errorf("read access entry %d: %w", i, err)
		}
		all = append(all, Grant{SID: sid, Mask: ace.Mask, Below: ace.Header.AceFlags&inheritOnly != 0})
	}
	return all, nil
}

// CreateFolder makes a folder that has its access list from the first moment.
func CreateFolder(path string, sd *windows.SECURITY_DESCRIPTOR) error {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(sa))
	return windows.CreateDirectory(name, &sa)
}

// CreateFile makes a file for writing that has its access list from the first
// moment; nil takes what the folder hands down. A file that is there is an error.
func CreateFile(path string, sd *windows.SECURITY_DESCRIPTOR) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(sa))
	return windows.CreateFile(name, windows.GENERIC_WRITE, windows.FILE_SHARE_READ|windows.FILE_SHARE_DELETE, &sa,
		windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
}

// fileAttributeTagInfo is the class of FILE_ATTRIBUTE_TAG_INFO (minwinbase.h).
const fileAttributeTagInfo = 9

// ReparseTag says of what kind an open reparse point is.
func ReparseTag(h windows.Handle) (uint32, error) {
	var info struct{ attributes, tag uint32 }
	err := windows.GetFileInformationByHandleEx(h, fileAttributeTagInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	if err != nil {
		return 0, fmt.Errorf("read reparse tag: %w", err)
	}
	return info.tag, nil
}
