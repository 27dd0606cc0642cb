//! What runs on the emulated driver, by name.

use std::sync::Arc;

use cudarc::{
    driver::{
        CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg,
        result,
        sys::{CUevent_flags, CUfunction_attribute, CUresult},
    },
    nvrtc::Ptx,
};

pub(crate) fn run(name: &str) {
    match name {
        "add_and_total" => add_and_total(),
        "operations" => operations(),
        "copies" => copies(),
        "limits" => limits(),
        "out_of_memory" => out_of_memory(),
        "stale_ptx" => drop(
            Device::new()
                .function("write_behind", ".entry write_behind(\n.param .u64 a\n)\n{\n}\n"),
        ),
        "host_pointer" => host_pointer(),
        "without_barrier" => without_barrier(),
        "copy_over_the_end" => copy_over_the_end(),
        "leak" => std::mem::forget(Device::new().stream.alloc_zeros::<f32>(32).unwrap()),
        "write_behind" | "read_behind" => {
            Device::new().launch(name, 32, Some(32));
        }
        _ => {
            Device::new().launch(name, 64, None);
        }
    }
}

struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
}

impl Device {
    fn new() -> Self {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        assert_eq!(context.name().unwrap(), "CPU emulation");
        assert_eq!(context.compute_capability().unwrap(), (9, 0));
        Self { context, stream }
    }

    fn function(&self, name: &str, ptx: &str) -> CudaFunction {
        self.context.load_module(Ptx::from_src(ptx)).unwrap().load_function(name).unwrap()
    }

    /// Launches a kernel on one block and as many floats, which it returns.
    fn launch(&self, name: &str, threads: u32, length: Option<u32>) -> Vec<f32> {
        let function = self.function(name, "");
        let mut out = self.stream.alloc_zeros::<f32>(threads as usize).unwrap();
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&mut out);
        if let Some(length) = &length {
            launch.arg(length);
        }
        // SAFETY: the parameters are those of the kernel; what it does wrong is what is tested.
        unsafe { launch.launch(one_block(threads, 0)) }.unwrap();
        self.stream.clone_dtoh(&out).unwrap()
    }
}

fn one_block(threads: u32, shared_mem_bytes: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (1, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes }
}

fn add(
    device: &Device,
    function: &CudaFunction,
    length: u32,
    shared: u32,
) -> Result<(Vec<f32>, f32), DriverError> {
    let a: Vec<f32> = (0..length).map(|i| i as f32).collect();
    let a = device.stream.clone_htod(&a)?;
    let b = device.stream.clone_htod(&vec![1.0f32; length as usize])?;
    let mut out: CudaSlice<f32> = device.stream.alloc_zeros(length as usize)?;
    let mut total: CudaSlice<f32> = device.stream.alloc_zeros(1)?;
    let mut launch = device.stream.launch_builder(function);
    launch.arg(&a).arg(&b).arg(&mut out).arg(&mut total).arg(&length);
    // SAFETY: the parameters are those of the kernel, and all buffers have `length` elements.
    unsafe { launch.launch(one_block(256, shared)) }?;
    Ok((device.stream.clone_dtoh(&out)?, device.stream.clone_dtoh(&total)?[0]))
}

fn add_and_total() {
    let device = Device::new();
    let (out, total) = add(&device, &device.function("add_and_total", ""), 1000, 4000).unwrap();
    assert!(out.iter().enumerate().all(|(i, &sum)| sum == i as f32 + 1.0), "{out:?}");
    assert_eq!(total, 500_500.0);
}

fn operations() {
    let device = Device::new();
    let function = device.function("operations", "");
    let mut out = device.stream.alloc_zeros::<u32>(64 * 16).unwrap();
    let mut launch = device.stream.launch_builder(&function);
    launch.arg(&mut out);
    // SAFETY: the kernel takes this buffer, 16 numbers for each of 64 threads.
    unsafe { launch.launch(one_block(64, 0)) }.unwrap();
    for (i, results) in device.stream.clone_dtoh(&out).unwrap().chunks(16).enumerate() {
        let i = i as u32;
        let (lane, first) = (i % 32, i / 32 * 32);
        let same_eighth = 0xff << (lane / 8 * 8);
        let of_warp = [0xf, 1, 0, same_eighth, 496 + 32 * first, first + 31, first + 3];
        let of_lane = [i - u32::from(lane > 0), i ^ 1, i / 8 * 8 + 1, 8, 31, 4];
        assert_eq!(results, [&[22, 1, 1][..], &of_warp, &of_lane].concat(), "thread {i}");
    }
}

fn copies() {
    let device = Device::new();
    let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let start = device.stream.record_event(timed).unwrap();
    // SAFETY: every element is written before it is read.
    let mut pinned = unsafe { device.context.alloc_pinned::<u32>(100) }.unwrap();
    for (i, element) in pinned.as_mut_slice().unwrap().iter_mut().enumerate() {
        *element = i as u32;
    }
    let there = device.stream.clone_htod(&pinned).unwrap();
    let other = device.context.new_stream().unwrap();
    other.join(&device.stream).unwrap();
    let twice = other.clone_dtod(&there.slice(50..)).unwrap();
    assert_eq!(other.clone_dtoh(&twice).unwrap(), (50..100).collect::<Vec<u32>>());
    assert!(start.elapsed_ms(&device.stream.record_event(timed).unwrap()).unwrap() >= 0.0);
    let (free, total) = device.context.mem_get_info().unwrap();
    assert_eq!(total - free, 600);
}

fn limits() {
    let device = Device::new();
    let function = device.function("add_and_total", "");
    let refused = |result: Result<(Vec<f32>, f32), DriverError>| {
        assert_eq!(result.unwrap_err().0, CUresult::CUDA_ERROR_INVALID_VALUE);
    };
    refused(add(&device, &function, 12_500, 50_000));
    let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(attribute, 50_000).unwrap();
    add(&device, &function, 12_500, 50_000).unwrap();
    assert!(function.set_attribute(attribute, 228 * 1024).is_err());

    let bounded = ".entry add_and_total(\n.param .u64 .ptr .align 1 a,\n.param .u64 b,\n.param .u64 c,\n.param .u64 d,\n\
                   .param .u32 e\n)\n.maxntid 128, 1, 1\n{\n.shared .align 4 .b8 f[32];\n}\n";
    refused(add(&device, &device.function("add_and_total", bounded), 100, 400));
    assert!(
        device
            .context
            .load_module(Ptx::from_src(bounded))
            .unwrap()
            .load_function("operations")
            .is_err()
    );
}

fn out_of_memory() {
    let device = Device::new();
    let half = device.stream.alloc_zeros::<u8>(600_000).unwrap();
    let full = device.stream.alloc_zeros::<u8>(600_000).unwrap_err();
    assert_eq!(full.0, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    drop(half);
    device.stream.alloc_zeros::<u8>(600_000).unwrap();
}

fn host_pointer() {
    let device = Device::new();
    let function = device.function("write_behind", "");
    let on_host = [0.0f32; 4];
    let address = on_host.as_ptr() as u64;
    let mut launch = device.stream.launch_builder(&function);
    launch.arg(&address).arg(&4u32);
    // SAFETY: the driver refuses the pointer before the kernel runs.
    unsafe { launch.launch(one_block(32, 0)) }.unwrap();
}

fn without_barrier() {
    let out = Device::new().launch("without_barrier", 32, None);
    assert!(out.iter().all(|&one| one == 1.0), "a thread read what was not yet written: {out:?}");
}

fn copy_over_the_end() {
    let device = Device::new();
    let small = device.stream.alloc_zeros::<f32>(32).unwrap();
    let (address, _use) = cudarc::driver::DevicePtr::device_ptr(&small, &device.stream);
    // SAFETY: the driver refuses the copy.
    unsafe { result::memcpy_htod_sync(address, &[0.0f32; 64]) }.unwrap();
}
