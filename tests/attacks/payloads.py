"""Names that attacks on unpickling call, each with the arguments that would make it act.

Gathered from the advisories and test data of picklescan, modelscan and fickling, from Python's own documentation, and
from what lies near these. `{canary}` is the file whose existence would tell that one ran.
"""

from __future__ import annotations

_SHELL = ("touch {canary}",)
_CODE = ("open('{canary}', 'w').close()",)
_FILE = ("{canary}", "w")
_ARGV = (["touch", "{canary}"],)

_BY_ARGUMENTS: list[tuple[tuple[object, ...], str]] = [
    (
        _SHELL,
        """os.system posix.system nt.system os.popen subprocess.getoutput subprocess.getstatusoutput commands.getoutput
        commands.getstatusoutput popen2.popen2 pty.spawn asyncio.create_subprocess_shell asyncio.run platform.popen
        pydoc.pipepager pydoc.tempfilepager distutils.spawn.spawn _pyrepl.pager.pipe_pager
        _pyrepl.pager.tempfile_pager torch.utils.collect_env.run torch.utils.collect_env.run_and_read_all
        numpy.distutils.exec_command.exec_command ctypes.util._get_soname webbrowser.open imaplib.IMAP4_stream
        _osx_support._read_output _aix_support._read_cmd_output test.support.script_helper.assert_python_ok
        IPython.utils.process.system sh.Command pexpect.run pexpect.spawn plumbum.local fabric.Connection
        invoke.run sarge.run""",
    ),
    (
        _ARGV,
        """subprocess.Popen subprocess.run subprocess.call subprocess.check_call subprocess.check_output
        _posixsubprocess.fork_exec multiprocessing.util.spawnv_passfds uuid._get_command_stdout
        setuptools._distutils.spawn.spawn idlelib.pyshell.ModifiedInterpreter idlelib.run.Executive
        test.support.script_helper.spawn_python asyncio.create_subprocess_exec pip.main pip._internal.main
        pip._internal.cli.main.main ensurepip.bootstrap ensurepip._run_pip venv.main zipapp.main""",
    ),
    (
        ("/bin/sh", ["sh", "-c", "touch {canary}"]),
        """os.execv os.execve os.execvp os.execvpe os.execl os.execlp os.spawnv os.spawnvp os.spawnl os.posix_spawn
        os.posix_spawnp posix.execv posix.posix_spawn os.fork posix.fork os.startfile""",
    ),
    (
        _CODE,
        """builtins.eval builtins.exec builtins.compile builtins.__import__ __builtin__.eval __builtin__.execfile
        code.interact code.InteractiveInterpreter code.InteractiveConsole codeop.compile_command
        timeit.timeit timeit.repeat timeit.main timeit.Timer cProfile.run cProfile.runctx profile.run profile.runctx
        profile.Profile.run trace.Trace.run trace.Trace.runctx pdb.run pdb.runcall pdb.runeval bdb.Bdb.run
        bdb.Bdb.runeval doctest.debug_script doctest.debug_src doctest.DocTestRunner idlelib.debugobj.ObjectTreeItem
        idlelib.calltip.get_entity idlelib.calltip.Calltip.fetch_tip idlelib.autocomplete.AutoComplete.fetch_completions
        idlelib.debugobj.ObjectTreeItem.SetText lib2to3.pgen2.grammar.Grammar.loads lib2to3.pgen2.pgen.ParserGenerator
        torch.jit.unsupported_tensor_ops.execWrapper torch._dynamo.guards.GuardBuilder.get
        torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression torch.utils._config_module.load_config
        torch.utils._config_module.ConfigModule.load_config torch.utils.bottleneck.__main__.run_cprofile
        torch.utils.bottleneck.__main__.run_autograd_prof numpy.testing._private.utils.runstring
        numpy.f2py.crackfortran.getlincoef numpy.f2py.crackfortran.param_eval numpy.f2py.crackfortran._eval_length
        numpy.f2py.crackfortran._eval_scalar numpy.f2py.crackfortran.myeval numpy.core.getlimits._discovered_machar
        typing._eval_type typing.ForwardRef annotationlib.ForwardRef.evaluate inspect._eval dataclasses._create_fn
        collections._namedtuple_eval sympy.sympify pandas.eval pandas.core.computation.eval.eval numexpr.evaluate
        jinja2.Template mako.template.Template ast.literal_eval string.Template string.Formatter logging.config.eval
        warnings._getaction rlcompleter.Completer.attr_matches cgitb.lookup pstats.ProfileBrowser""",
    ),
    (
        ("{canary}",),
        """runpy.run_path runpy.run_module runpy._run_code importlib.import_module importlib.__import__
        importlib.machinery.SourceFileLoader importlib.util.spec_from_file_location imp.load_source imp.load_module
        pkgutil.resolve_name pkgutil.get_loader zipimport.zipimporter pydoc.locate pydoc.safeimport
        pydoc.ErrorDuringImport site.main site.addsitedir site.execsitecustomize site.addpackage ctypes.CDLL
        ctypes.cdll.LoadLibrary ctypes.PyDLL
        ctypes.util.find_library torch.load torch.hub.load torch.hub.load_state_dict_from_url torch.jit.load
        torch.package.PackageImporter torch.classes.load_library torch.ops.load_library torch.utils.cpp_extension.load
        torch.utils.cpp_extension.load_inline torch.storage._load_from_bytes torch.serialization.load
        torch._inductor.codecache.compile_file torch._inductor.codecache.PyCodeCache.load torch.distributed.rpc.rpc_sync
        torch.multiprocessing.spawn torch.export.load numpy.load numpy.testing._private.utils.run_threaded
        numpy.ctypeslib.load_library joblib.load pandas.read_pickle pandas.read_csv shelve.open dbm.open
        sqlite3.connect yaml.load yaml.unsafe_load keras.models.load_model tensorflow.keras.models.load_model
        tensorflow.io.read_file cv2.imread PIL.Image.open sklearn.utils._joblib.load dill.load_session
        cloudpickle.cloudpickle.subimport marshal.load pickle.load _pickle.load fileinput.input linecache.getline
        tokenize.open distutils.file_util.write_file distutils.core.run_setup setuptools.sandbox.run_setup""",
    ),
    (
        (b"\x80\x02N.",),
        """pickle.loads _pickle.loads cPickle.loads pickle.Unpickler marshal.loads dill.loads dill._dill.loads
        cloudpickle.loads dill._dill._create_function dill._dill._create_code dill._dill._eval_repr
        cloudpickle.cloudpickle._make_function cloudpickle.cloudpickle._builtin_type joblib.numpy_pickle.NumpyUnpickler
        types.CodeType types.FunctionType types.ModuleType types.new_class functools.reduce functools.partial
        itertools.starmap builtins.map builtins.filter codecs.decode _codecs.decode zlib.decompress gzip.decompress
        bz2.decompress lzma.decompress base64.b64decode multiprocessing.reduction.rebuild_connection
        multiprocessing.reduction.ForkingPickler.loads jsonpickle.decode jsonpickle.unpickler.decode""",
    ),
    (
        _FILE,
        """builtins.open io.open _io.open io.FileIO _io.FileIO codecs.open os.open posix.open pathlib.Path.write_text
        pathlib.PosixPath.touch tempfile.NamedTemporaryFile zipfile.ZipFile tarfile.open shutil.copyfile shutil.move
        shutil.rmtree shutil.unpack_archive os.remove os.unlink os.rename os.rmdir os.removedirs os.mkdir os.makedirs
        os.symlink os.link os.chmod os.chown os.truncate os.mkfifo os.putenv os.chdir logging.FileHandler
        logging.config.fileConfig logging.config.dictConfig logging.config.listen numpy.save numpy.savetxt
        numpy.memmap numpy.DataSource torch.save torch.from_file""",
    ),
    (
        ("example.invalid", 80),
        """socket.socket socket.create_connection _socket.socket asyncio.open_connection http.client.HTTPConnection
        http.client.HTTPSConnection http.server.HTTPServer urllib.request.urlopen urllib.request.urlretrieve
        urllib2.urlopen httplib.HTTPSConnection requests.api.request requests.get requests.post httpx.get
        aiohttp.client.ClientSession
        ftplib.FTP smtplib.SMTP poplib.POP3 imaplib.IMAP4 telnetlib.Telnet nntplib.NNTP xmlrpc.client.ServerProxy
        ssl.wrap_socket socketserver.TCPServer multiprocessing.connection.Client multiprocessing.managers.BaseManager
        paramiko.client.SSHClient boto3.client huggingface_hub.hf_hub_download""",
    ),
    (
        ("__class__", "__globals__"),
        """builtins.getattr builtins.setattr builtins.delattr builtins.hasattr builtins.vars builtins.globals
        builtins.locals builtins.dir builtins.breakpoint builtins.input builtins.exit builtins.quit builtins.help
        builtins.print builtins.super builtins.property builtins.memoryview operator.attrgetter operator.itemgetter
        operator.methodcaller _operator.attrgetter _operator.methodcaller operator.call inspect.getattr_static
        types.MethodType types.DynamicClassAttribute functools.partialmethod functools.cached_property
        weakref.finalize atexit.register signal.signal signal.alarm signal.raise_signal threading.Thread
        _thread.start_new_thread thread.start_new_thread threading.Timer concurrent.futures.ThreadPoolExecutor
        multiprocessing.Process multiprocessing.Pool multiprocessing.context.Process sched.scheduler time.sleep
        gc.get_objects gc.get_referrers sys.exit sys.settrace sys.setprofile sys._getframe sys.modules.get
        sys.modules.__setitem__ sys.meta_path.append os._exit os.abort os.kill faulthandler._sigsegv
        ctypes.string_at ctypes.memmove ctypes.CFUNCTYPE copyreg.add_extension copyreg.pickle copyreg.constructor
        copyreg.__reduce_ex__ abc.ABCMeta enum.EnumMeta unittest.mock._importer unittest.mock.patch
        unittest.loader.TestLoader.loadTestsFromName test.support.import_helper.import_module bdb.Bdb.runcall
        contextlib.ExitStack contextlib.closing cmd.Cmd.onecmd cgi.parse pipes.Template readline.read_init_file
        winreg.SetValue msvcrt._open ntpath.expandvars posixpath.expandvars glob.glob getpass.getpass""",
    ),
]

PAYLOADS: dict[str, tuple[object, ...]] = {
    name: arguments for arguments, names in _BY_ARGUMENTS for name in names.split()
}
"""`module.name` -> what it would be called with."""


def split(name: str) -> tuple[str, str]:
    """Give the module and the name in it; a class's method is a dotted name in its module."""
    module, _, last = name.rpartition(".")
    head, _, owner = module.rpartition(".")
    return (head, f"{owner}.{last}") if head and owner[:1].isupper() else (module, last)
