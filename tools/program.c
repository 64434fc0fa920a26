#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static bool is_executable(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0;
}

bool program_find(const char *command, char *path, size_t bytes)
{
    if (strchr(command, '/') != NULL)
        return snprintf(path, bytes, "%s", command) < (int)bytes && is_executable(path);
    const char *folders = getenv("PATH");
    if (folders == NULL)
        folders = "/usr/local/bin:/usr/bin:/bin";
    while (*folders != '\0') {
        size_t length = strcspn(folders, ":");
        int written = snprintf(path, bytes, "%.*s/%s", (int)length, length > 0 ? folders : ".", command);
        if (written < (int)bytes && is_executable(path))
            return true;
        folders += length;
        folders += *folders == ':';
    }
    return false;
}

/* ---- ELF ---- */

static bool defines(Elf *elf, const char *symbol, unsigned kind)
{
    Elf_Scn *section = NULL;
    GElf_Shdr header;
    while ((section = elf_nextscn(elf, section)) != NULL) {
        Elf_Data *data;
        if (gelf_getshdr(section, &header) == NULL || header.sh_type != kind || header.sh_entsize == 0 ||
            (data = elf_getdata(section, NULL)) == NULL)
            continue;
        for (int i = 0; i < (int)(header.sh_size / header.sh_entsize); i++) {
            GElf_Sym entry;
            const char *name;
            if (gelf_getsym(data, i, &entry) != NULL && entry.st_shndx != SHN_UNDEF &&
                GELF_ST_TYPE(entry.st_info) == STT_FUNC &&
                (name = elf_strptr(elf, header.sh_link, entry.st_name)) != NULL && strcmp(name, symbol) == 0)
                return true;
        }
    }
    return false;
}

static bool needs_tarn(Elf *elf)
{
    Elf_Scn *section = NULL;
    GElf_Shdr header;
    while ((section = elf_nextscn(elf, section)) != NULL) {
        Elf_Data *data;
        if (gelf_getshdr(section, &header) == NULL || header.sh_type != SHT_DYNAMIC ||
            header.sh_entsize == 0 || (data = elf_getdata(section, NULL)) == NULL)
            continue;
        for (int i = 0; i < (int)(header.sh_size / header.sh_entsize); i++) {
            GElf_Dyn entry;
            const char *name;
            if (gelf_getdyn(data, i, &entry) != NULL && entry.d_tag == DT_NEEDED &&
                (name = elf_strptr(elf, header.sh_link, entry.d_un.d_val)) != NULL &&
                strncmp(name, "libtarn", 7) == 0)
                return true;
        }
    }
    return false;
}

static bool has_interpreter(Elf *elf)
{
    size_t count = 0;
    GElf_Phdr header;
    if (elf_getphdrnum(elf, &count) != 0)
        return false;
    for (size_t i = 0; i < count; i++)
        if (gelf_getphdr(elf, (int)i, &header) != NULL && header.p_type == PT_INTERP)
            return true;
    return false;
}

static void read_elf(int file, struct program *program)
{
    GElf_Ehdr header;
    GElf_Ehdr own;
    Elf *elf = elf_begin(file, ELF_C_READ, NULL);
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    Elf *own_elf = self >= 0 ? elf_begin(self, ELF_C_READ, NULL) : NULL;
    program->is_elf = elf != NULL && elf_kind(elf) == ELF_K_ELF && gelf_getehdr(elf, &header) != NULL;
    if (program->is_elf) {
        program->is_static = !has_interpreter(elf);
        program->has_tarn = needs_tarn(elf) || defines(elf, "tarn_malloc", SHT_SYMTAB);
        program->allocates = defines(elf, "malloc", SHT_DYNSYM) || defines(elf, "malloc", SHT_SYMTAB);
        program->other_class =
            own_elf != NULL && gelf_getehdr(own_elf, &own) != NULL &&
            (header.e_machine != own.e_machine || header.e_ident[EI_CLASS] != own.e_ident[EI_CLASS]);
    }
    if (own_elf != NULL)
        elf_end(own_elf);
    if (self >= 0)
        close(self);
    if (elf != NULL)
        elf_end(elf);
}

static void read_script(int file, struct program *program)
{
    char line[256] = "";
    if (pread(file, line, sizeof line - 1, 0) < 3 || strncmp(line, "#!", 2) != 0)
        return;
    char *name = line + 2 + strspn(line + 2, " \t");
    name[strcspn(name, " \t\n")] = '\0';
    snprintf(program->interpreter, sizeof program->interpreter, "%s", name);
}

/* Whether the kernel gives the program rights that who starts it has not; a bit that names its own user gives
 * none, and root has the capabilities. */
static bool changes_rights(int file, const struct stat *info)
{
    bool user = (info->st_mode & S_ISUID) != 0 && info->st_uid != getuid();
    bool group = (info->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && info->st_gid != getgid();
    return user || group || (getuid() != 0 && fgetxattr(file, "security.capability", NULL, 0) > 0);
}

bool program_read(const char *path, struct program *program)
{
    struct stat info;
    *program = (struct program){0};
    snprintf(program->path, sizeof program->path, "%s", path);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    elf_version(EV_CURRENT);
    read_elf(file, program);
    if (!program->is_elf)
        read_script(file, program);
    program->set_user_id = fstat(file, &info) == 0 && changes_rights(file, &info);
    close(file);
    return true;
}

/* NULL where there is no such file, or where it is none. */
static Elf *open_elf(const char *path, int *file)
{
    elf_version(EV_CURRENT);
    *file = open(path, O_RDONLY | O_CLOEXEC);
    Elf *elf = *file >= 0 ? elf_begin(*file, ELF_C_READ, NULL) : NULL;
    if (elf != NULL && elf_kind(elf) == ELF_K_ELF)
        return elf;
    if (elf != NULL)
        elf_end(elf);
    if (*file >= 0)
        close(*file);
    return NULL;
}

static void close_elf(Elf *elf, int file)
{
    elf_end(elf);
    close(file);
}

bool program_defines(const char *path, const char *symbol)
{
    int file;
    Elf *elf = open_elf(path, &file);
    bool found = elf != NULL && defines(elf, symbol, SHT_DYNSYM);
    if (elf != NULL)
        close_elf(elf, file);
    return found;
}

bool program_hides(const char *path, const char *symbol)
{
    int file;
    Elf *elf = open_elf(path, &file);
    bool found = elf != NULL && defines(elf, symbol, SHT_SYMTAB) && !defines(elf, symbol, SHT_DYNSYM);
    if (elf != NULL)
        close_elf(elf, file);
    return found;
}

/* The next section of a kind, with its data. */
static Elf_Data *next_section(Elf *elf, Elf_Scn **section, unsigned kind, GElf_Shdr *header)
{
    while ((*section = elf_nextscn(elf, *section)) != NULL) {
        Elf_Data *data;
        if (gelf_getshdr(*section, header) != NULL && header->sh_type == kind && header->sh_entsize != 0 &&
            (data = elf_getdata(*section, NULL)) != NULL)
            return data;
    }
    return NULL;
}

bool program_is_symbolic(const char *path)
{
    int file;
    Elf *elf = open_elf(path, &file);
    Elf_Scn *section = NULL;
    GElf_Shdr header;
    bool found = false;
    Elf_Data *data = elf == NULL ? NULL : next_section(elf, &section, SHT_DYNAMIC, &header);
    for (int i = 0; data != NULL && i < (int)(header.sh_size / header.sh_entsize); i++) {
        GElf_Dyn entry;
        if (gelf_getdyn(data, i, &entry) != NULL)
            found |= entry.d_tag == DT_SYMBOLIC ||
                     (entry.d_tag == DT_FLAGS && (entry.d_un.d_val & DF_SYMBOLIC) != 0);
    }
    if (elf != NULL)
        close_elf(elf, file);
    return found;
}

static const char *const family[] = {"malloc",         "calloc",        "realloc", "free",
                                     "posix_memalign", "aligned_alloc", "_Znwm",   "_Znam",
                                     "_ZdlPv",         "_ZdaPv",        "_ZdlPvm"};

static bool is_of_family(const char *symbol)
{
    for (size_t i = 0; i < sizeof family / sizeof *family; i++)
        if (strcmp(symbol, family[i]) == 0)
            return true;
    return false;
}

void program_imports(const char *path,
                     void (*each)(const char *symbol, uint64_t place, uint64_t own, void *context),
                     void *context)
{
    int file;
    Elf *elf = open_elf(path, &file);
    Elf_Scn *section = NULL;
    GElf_Shdr header, names;
    Elf_Data *data;
    while (elf != NULL && (data = next_section(elf, &section, SHT_RELA, &header)) != NULL) {
        Elf_Scn *symbols = elf_getscn(elf, header.sh_link);
        Elf_Data *table = symbols == NULL ? NULL : elf_getdata(symbols, NULL);
        if (table == NULL || gelf_getshdr(symbols, &names) == NULL)
            continue;
        for (int i = 0; i < (int)(header.sh_size / header.sh_entsize); i++) {
            GElf_Rela place;
            GElf_Sym symbol;
            const char *name;
            if (gelf_getrela(data, i, &place) != NULL && place.r_addend == 0 &&
                GELF_R_SYM(place.r_info) != 0 &&
                gelf_getsym(table, (int)GELF_R_SYM(place.r_info), &symbol) != NULL &&
                (name = elf_strptr(elf, names.sh_link, symbol.st_name)) != NULL && is_of_family(name))
                each(name, place.r_offset, symbol.st_shndx == SHN_UNDEF ? 0 : symbol.st_value, context);
        }
    }
    if (elf != NULL)
        close_elf(elf, file);
}

/* ---- the library ---- */

bool program_find_library(bool hardened, char *path, size_t bytes)
{
    const char *name = hardened ? "libtarn-hardened.so.0" : "libtarn.so.0";
    static const char *const folders[] = {("../" TARN_LIBDIR), "../lib", "../lib64"};
    char self[3072];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0)
        return false;
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char joined[4096];
        snprintf(joined, sizeof joined, "%s/%s/%s", self, folders[i], name);
        char *whole = realpath(joined, NULL);
        if (whole == NULL)
            continue;
        /* As named, so that an upgrade beside a long-lived script is seen. */
        snprintf(path, bytes, "%.*s/%s", (int)(strrchr(whole, '/') - whole), whole, name);
        free(whole);
        return true;
    }
    errno = ENOENT;
    return false;
}
