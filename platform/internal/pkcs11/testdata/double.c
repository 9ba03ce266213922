/*
 * A TEST DOUBLE of a PKCS #11 module, for Windows. It is no token, keeps nothing
 * safe and makes no key and no signature: it keeps what it is given and gives it
 * back, so that a test can see whether structures, numbers and addresses arrive
 * in C as they were meant. It shows nothing about NSS. It is never shipped.
 *
 *   x86_64-w64-mingw32-gcc -shared -Os -s -Wall -Wextra -o pkcs11double.dll double.c
 *
 * The layout is that of PKCS #11 v2.40 for Windows, as this C compiler makes it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned char CK_BYTE;
typedef unsigned long CK_ULONG; /* 32 bits here */
typedef CK_ULONG CK_RV;

#pragma pack(push, 1)
typedef struct { CK_BYTE major, minor; } CK_VERSION;
typedef struct { CK_ULONG type; void *value; CK_ULONG length; } CK_ATTRIBUTE;
typedef struct { CK_ULONG mechanism; void *parameter; CK_ULONG length; } CK_MECHANISM;
typedef struct { CK_ULONG hash, mgf, salt; } PSS;
typedef struct { CK_ULONG hash, mgf, source; void *data; CK_ULONG length; } OAEP;
typedef struct { CK_ULONG kdf, shared_length; CK_BYTE *shared; CK_ULONG public_length; CK_BYTE *public; } ECDH1;
typedef struct {
	void *create, *destroy, *lock, *unlock;
	CK_ULONG flags;
	char *parameters; /* NSS's; pReserved in the standard */
	void *reserved;
} CK_C_INITIALIZE_ARGS;
typedef struct {
	CK_BYTE description[64], manufacturer[32];
	CK_ULONG flags;
	CK_VERSION hardware, firmware;
} CK_SLOT_INFO;
typedef struct {
	CK_BYTE label[32], manufacturer[32], model[16], serial[16];
	CK_ULONG flags, sessions[4], pin[2], memory[4];
	CK_VERSION hardware, firmware;
	CK_BYTE time[16];
} CK_TOKEN_INFO;
typedef struct { CK_ULONG least, most, flags; } CK_MECHANISM_INFO;
typedef struct { CK_VERSION version; void *functions[68]; } CK_FUNCTION_LIST;
#pragma pack(pop)

enum {
	OK = 0, SLOT_ID_INVALID = 3, ARGUMENTS_BAD = 7, ATTRIBUTE_TYPE_INVALID = 0x12, OBJECT_HANDLE_INVALID = 0x82,
	MECHANISM_INVALID = 0x70, PIN_INCORRECT = 0xA0, SESSION_HANDLE_INVALID = 0xB3, BUFFER_TOO_SMALL = 0x150,
	NOT_INITIALIZED = 0x190, MOST = 64,
	PKCS_OAEP = 0x9, PKCS_PSS = 0xD, ECDH1_DERIVE = 0x1050, VALUE = 0x11,
};

#define HIGH 0x80000000UL /* handles use the highest bit, which must not become a sign */

struct object { int used; CK_ULONG count; CK_ATTRIBUTE attributes[MOST]; };

static struct object objects[MOST];
static char parameters[512], operation[4096];
static size_t operation_length;
static CK_ULONG session, found[MOST], found_count, found_next;

/* describe writes a mechanism as text, and the octets that it points to behind it. */
static CK_RV describe(const CK_MECHANISM *m) {
	char *to = operation;
	if (m->mechanism == PKCS_PSS && m->length == sizeof(PSS)) {
		const PSS *p = m->parameter;
		to += sprintf(to, "PSS %lu %lu %lu;", p->hash, p->mgf, p->salt);
	} else if (m->mechanism == PKCS_OAEP && m->length == sizeof(OAEP)) {
		const OAEP *p = m->parameter;
		to += sprintf(to, "OAEP %lu %lu %lu %lu;", p->hash, p->mgf, p->source, p->length);
		if ((p->data == NULL) != (p->length == 0)) return ARGUMENTS_BAD;
		memcpy(to, p->data, p->length);
		to += p->length;
	} else if (m->mechanism == ECDH1_DERIVE && m->length == sizeof(ECDH1)) {
		const ECDH1 *p = m->parameter;
		to += sprintf(to, "ECDH1 %lu %lu %lu;", p->kdf, p->shared_length, p->public_length);
		if ((p->shared == NULL) != (p->shared_length == 0)) return ARGUMENTS_BAD;
		memcpy(to, p->shared, p->shared_length);
		to += p->shared_length;
		memcpy(to, p->public, p->public_length);
		to += p->public_length;
	} else if (m->parameter == NULL && m->length == 0) {
		to += sprintf(to, "bare %lu;", m->mechanism);
	} else {
		return MECHANISM_INVALID;
	}
	operation_length = (size_t)(to - operation);
	return OK;
}

static void put(struct object *o, CK_ULONG type, const void *value, CK_ULONG length) {
	CK_ATTRIBUTE *a = NULL;
	for (CK_ULONG i = 0; i < o->count; i++) if (o->attributes[i].type == type) a = &o->attributes[i];
	if (a == NULL) a = &o->attributes[o->count++];
	free(a->value);
	a->type = type;
	a->length = length;
	a->value = malloc(length + 1);
	memcpy(a->value, value, length);
}

static CK_ULONG make(const CK_ATTRIBUTE *template, CK_ULONG count) {
	for (CK_ULONG i = 0; i < MOST; i++) {
		if (objects[i].used) continue;
		memset(&objects[i], 0, sizeof objects[i]);
		objects[i].used = 1;
		for (CK_ULONG j = 0; j < count; j++) put(&objects[i], template[j].type, template[j].value, template[j].length);
		return HIGH | i;
	}
	abort();
}

static struct object *object(CK_ULONG h) {
	CK_ULONG i = h & ~HIGH;
	return (h & HIGH) && i < MOST && objects[i].used ? &objects[i] : NULL;
}

static int matches(const struct object *o, const CK_ATTRIBUTE *template, CK_ULONG count) {
	for (CK_ULONG i = 0; i < count; i++) {
		int hit = 0;
		for (CK_ULONG j = 0; j < o->count; j++) {
			const CK_ATTRIBUTE *a = &o->attributes[j];
			hit |= a->type == template[i].type && a->length == template[i].length && memcmp(a->value, template[i].value, a->length) == 0;
		}
		if (!hit) return 0;
	}
	return 1;
}

static CK_RV Initialize(CK_C_INITIALIZE_ARGS *a) {
	if (a == NULL || a->flags != 2 || a->create || a->destroy || a->lock || a->unlock || a->reserved) return ARGUMENTS_BAD;
	snprintf(parameters, sizeof parameters, "%s", a->parameters == NULL ? "" : a->parameters);
	return OK;
}

static CK_RV Finalize(void *reserved) { return reserved == NULL ? OK : ARGUMENTS_BAD; }

static CK_RV GetSlotList(CK_BYTE present, CK_ULONG *list, CK_ULONG *count) {
	CK_ULONG slots[] = {HIGH | 7, 2};
	CK_ULONG have = present ? 1 : 2, room = *count;
	*count = have;
	if (list == NULL) return OK;
	if (room < have) return BUFFER_TOO_SMALL;
	memcpy(list, slots, have * sizeof *list);
	return OK;
}

static void pad(CK_BYTE *to, size_t size, const char *text) {
	memset(to, ' ', size);
	memcpy(to, text, strlen(text));
}

static CK_RV GetSlotInfo(CK_ULONG slot, CK_SLOT_INFO *info) {
	if (slot != (HIGH | 7)) return SLOT_ID_INVALID;
	memset(info, 0xEE, sizeof *info);
	info->flags = HIGH | 5;
	return OK;
}

/* The token's flags say "initialized", and its label is what C_Initialize was given. */
static CK_RV GetTokenInfo(CK_ULONG slot, CK_TOKEN_INFO *info) {
	char label[33];
	if (slot != (HIGH | 7)) return SLOT_ID_INVALID;
	memset(info, 0xEE, sizeof *info);
	snprintf(label, sizeof label, "%s", parameters[0] ? parameters : "TEST DOUBLE");
	pad(info->label, sizeof info->label, label);
	pad(info->manufacturer, sizeof info->manufacturer, "nobody");
	pad(info->model, sizeof info->model, "double");
	info->flags = HIGH | 0x400;
	return OK;
}

static CK_RV GetMechanismInfo(CK_ULONG slot, CK_ULONG type, CK_MECHANISM_INFO *info) {
	if (slot != (HIGH | 7)) return SLOT_ID_INVALID;
	*info = (CK_MECHANISM_INFO){type, HIGH | type, 0xEEEEEEEE};
	return OK;
}

static CK_RV OpenSession(CK_ULONG slot, CK_ULONG flags, void *application, void *notify, CK_ULONG *h) {
	if (slot != (HIGH | 7) || application || notify) return ARGUMENTS_BAD;
	*h = session = HIGH | (flags << 8) | 1;
	return OK;
}

static CK_RV CloseSession(CK_ULONG h) { return h == session ? OK : SESSION_HANDLE_INVALID; }

static CK_RV Login(CK_ULONG h, CK_ULONG user, const CK_BYTE *pin, CK_ULONG length) {
	char text[64];
	if (h != session) return SESSION_HANDLE_INVALID;
	if (pin == NULL || length >= sizeof text) return ARGUMENTS_BAD;
	memcpy(text, pin, length);
	text[length] = 0;
	return user == 0 && length == 0 ? OK : user == 1 && strcmp(text, "p\xc3\xa4ss") == 0 ? OK : PIN_INCORRECT;
}

static CK_RV Logout(CK_ULONG h) { return h == session ? OK : SESSION_HANDLE_INVALID; }

static CK_RV InitPIN(CK_ULONG h, const CK_BYTE *pin, CK_ULONG length) {
	return h != session ? SESSION_HANDLE_INVALID : pin != NULL && length == 0 ? OK : ARGUMENTS_BAD;
}

static CK_RV CreateObject(CK_ULONG h, const CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *made) {
	if (h != session) return SESSION_HANDLE_INVALID;
	*made = make(template, count);
	return OK;
}

static CK_RV SetAttributeValue(CK_ULONG h, CK_ULONG o, const CK_ATTRIBUTE *template, CK_ULONG count) {
	if (h != session) return SESSION_HANDLE_INVALID;
	if (object(o) == NULL) return OBJECT_HANDLE_INVALID;
	for (CK_ULONG i = 0; i < count; i++) put(object(o), template[i].type, template[i].value, template[i].length);
	return OK;
}

static CK_RV CopyObject(CK_ULONG h, CK_ULONG o, const CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *made) {
	if (h != session) return SESSION_HANDLE_INVALID;
	if (object(o) == NULL) return OBJECT_HANDLE_INVALID;
	*made = make(object(o)->attributes, object(o)->count);
	return SetAttributeValue(h, *made, template, count);
}

static CK_RV DestroyObject(CK_ULONG h, CK_ULONG o) {
	if (h != session) return SESSION_HANDLE_INVALID;
	if (object(o) == NULL) return OBJECT_HANDLE_INVALID;
	object(o)->used = 0;
	return OK;
}

// Two attributes of every object whose lengths are lies: one too long for any
// memory, one that has grown when its value is asked for.
#define LIE_LONG 0x80004C01u
#define LIE_GROWS 0x80004C02u

static CK_RV GetAttributeValue(CK_ULONG h, CK_ULONG o, CK_ATTRIBUTE *template, CK_ULONG count) {
	CK_RV answer = OK;
	if (h != session) return SESSION_HANDLE_INVALID;
	if (object(o) == NULL) return OBJECT_HANDLE_INVALID;
	for (CK_ULONG i = 0; i < count; i++) {
		if (template[i].type == LIE_LONG || template[i].type == LIE_GROWS) {
			template[i].length = template[i].type == LIE_LONG ? 0x7FFFFFFF : template[i].value == NULL ? 4 : 8;
			continue;
		}
		CK_ATTRIBUTE *a = NULL;
		for (CK_ULONG j = 0; j < object(o)->count; j++)
			if (object(o)->attributes[j].type == template[i].type) a = &object(o)->attributes[j];
		if (a == NULL) {
			template[i].length = (CK_ULONG)-1;
			answer = ATTRIBUTE_TYPE_INVALID;
		} else if (template[i].value == NULL) {
			template[i].length = a->length;
		} else if (template[i].length < a->length) {
			template[i].length = (CK_ULONG)-1;
			answer = BUFFER_TOO_SMALL;
		} else {
			template[i].length = a->length;
			memcpy(template[i].value, a->value, a->length);
		}
	}
	return answer;
}

static CK_RV FindObjectsInit(CK_ULONG h, const CK_ATTRIBUTE *template, CK_ULONG count) {
	if (h != session) return SESSION_HANDLE_INVALID;
	found_count = found_next = 0;
	for (CK_ULONG i = 0; i < MOST; i++)
		if (objects[i].used && matches(&objects[i], template, count)) found[found_count++] = HIGH | i;
	return OK;
}

static CK_RV FindObjects(CK_ULONG h, CK_ULONG *list, CK_ULONG most, CK_ULONG *count) {
	if (h != session) return SESSION_HANDLE_INVALID;
	for (*count = 0; *count < most && found_next < found_count;) list[(*count)++] = found[found_next++];
	return OK;
}

static CK_RV FindObjectsFinal(CK_ULONG h) { return h == session ? OK : SESSION_HANDLE_INVALID; }

static CK_RV Begin(CK_ULONG h, const CK_MECHANISM *m, CK_ULONG key) {
	if (h != session) return SESSION_HANDLE_INVALID;
	return object(key) == NULL ? OBJECT_HANDLE_INVALID : describe(m);
}

/* Finish gives the mechanism as text and what it was to work on. Asked for the
 * length only, it names one too many, as NSS does for what it decrypts. */
static CK_RV Finish(CK_ULONG h, const CK_BYTE *data, CK_ULONG length, CK_BYTE *result, CK_ULONG *result_length) {
	CK_ULONG room = *result_length;
	if (h != session) return SESSION_HANDLE_INVALID;
	if (data == NULL) return ARGUMENTS_BAD;
	*result_length = (CK_ULONG)operation_length + length + (result == NULL);
	if (result == NULL) return OK;
	if (room < *result_length) return BUFFER_TOO_SMALL;
	memcpy(result, operation, operation_length);
	memcpy(result + operation_length, data, length);
	return OK;
}

static CK_RV GenerateKeyPair(CK_ULONG h, const CK_MECHANISM *m, const CK_ATTRIBUTE *public, CK_ULONG public_count,
	const CK_ATTRIBUTE *private, CK_ULONG private_count, CK_ULONG *public_key, CK_ULONG *private_key) {
	CK_RV answer = describe(m);
	if (h != session || answer != OK) return h != session ? SESSION_HANDLE_INVALID : answer;
	*public_key = make(public, public_count);
	*private_key = make(private, private_count);
	return OK;
}

/* DeriveKey makes an object whose value is the mechanism as text. */
static CK_RV DeriveKey(CK_ULONG h, const CK_MECHANISM *m, CK_ULONG base, const CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *key) {
	CK_RV answer = Begin(h, m, base);
	if (answer != OK) return answer;
	*key = make(template, count);
	put(object(*key), VALUE, operation, (CK_ULONG)operation_length);
	return OK;
}

static CK_FUNCTION_LIST list = {{2, 40}, {
	[0] = Initialize, [1] = Finalize, [4] = GetSlotList, [5] = GetSlotInfo, [6] = GetTokenInfo, [8] = GetMechanismInfo,
	[10] = InitPIN, [12] = OpenSession, [13] = CloseSession, [18] = Login, [19] = Logout, [20] = CreateObject,
	[21] = CopyObject, [22] = DestroyObject, [24] = GetAttributeValue, [25] = SetAttributeValue, [26] = FindObjectsInit,
	[27] = FindObjects, [28] = FindObjectsFinal, [33] = Begin, [34] = Finish, [42] = Begin, [43] = Finish,
	[59] = GenerateKeyPair, [62] = DeriveKey}};

__declspec(dllexport) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **to);

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **to) {
	*to = &list;
	return OK;
}
